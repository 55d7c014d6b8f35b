"""The input cost of a 10-turn conversation under provider caching, relative to no injection.

Conversations go through the real proxy to an upstream that keeps every body it gets; what a provider would bill for
those bodies is then worked out (provider_cache.py), beside the bodies as the app sent them and beside other placements
of the same learned text.
"""

import http.client
import json
import random
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bench.bars import Bar, Part, at_least, at_most, table
from bench.dialects import DIALECTS, Block, Dialect, Item, Json, Prompt
from bench.installation import ACTOR, Installation, real_texts, write_config
from bench.machine import machine
from bench.processes import free_port, running, tutelage_command
from bench.provider_cache import Bill, billed_implicit_writes, billed_writes, free_writes
from store.blocks import pattern_line
from store.clock import SystemClock
from store.config import load_config
from store.context_proposals import create_context
from store.database import open_database
from store.embedding import load_local_embedder
from store.generations import publish
from store.plan import Conditions, ServedPattern, build_plan
from store.tenants import ensure_default_tenant
from store.tokens import TokenCounter, load_token_counter
from store.vocabulary import DEFAULT_TENANT
from store.wordings import compose

N_TURNS = 10
SYSTEM_TOKENS, LONG_SYSTEM_TOKENS = 2000, 8000
USER_TOKENS, ANSWER_TOKENS, RESULT_TOKENS = 120, 350, 200
N_RULES, RULE_TOKENS = 10, 26  # with their frame, about 300 tokens
N_ENTRIES = 3  # a question; with their frame, about 600 tokens
ENTRY_ANSWER_TOKENS = 51
CALLS_PER_QUESTION = 2
FREE_LIMIT, BILLED_LIMIT = 1.75, 1.70
FREE, IMPLICIT, MARKED = "free writes", "billed writes", "billed writes at breakpoints"
TEXT = """Ten turns through the running proxy; an upstream keeps every body it gets, and a simulated provider bills
their input (tokens by cl100k_base), relative to the same bodies as the app sent them. Reads cost 0.1 of a token.
`{free}` and `{implicit}` (1.25): whatever was seen is cached, exact prefixes from 1,024 tokens in steps of 128, as
OpenAI does. `{marked}` (1.25): only up to the app's own `cache_control`, as Anthropic does; here the app marks its
system text and its newest message. Questions have {user} tokens, answers {answer}, the system text {system} ({long}
where it is long); in the tool loop every question takes two calls, so 30 requests. The columns on the right are other
places for the same learned text, billed by the same simulation.

Machine: {machine}.
"""


@dataclass(frozen=True)
class Trace:
    """A recorded conversation: each request's items so far, and what the model said then."""

    name: str
    system: str
    requests: tuple[tuple[tuple[Item, ...], Item], ...]


class Texts:
    """Text of an asked size, of real sentences, never the same twice."""

    def __init__(self, tokens: TokenCounter, seed: int) -> None:
        self._tokens = tokens
        self._random = random.Random(seed)
        self._sentences = real_texts()

    def of(self, n_tokens: int) -> str:
        """Return a text of *n_tokens*, a token more or less."""
        words: list[str] = []
        while self._tokens.count(" ".join(words)) < n_tokens:
            words += self._random.choice(self._sentences).split()
        while self._tokens.count(" ".join(words)) > n_tokens:
            words.pop()
        return " ".join(words)


def plain_chat(name: str, texts: Texts, system_tokens: int) -> Trace:
    """Return ten questions and answers."""
    items: list[Item] = []
    requests = []
    for _ in range(N_TURNS):
        items.append(Item("user", texts.of(USER_TOKENS)))
        answer = Item("assistant", texts.of(ANSWER_TOKENS))
        requests.append((tuple(items), answer))
        items.append(answer)
    return Trace(name, texts.of(system_tokens), tuple(requests))


def tool_loop(name: str, texts: Texts) -> Trace:
    """Return ten questions, each answered after two calls of a tool: three requests a question."""
    items: list[Item] = []
    requests = []
    for turn in range(N_TURNS):
        items.append(Item("user", texts.of(USER_TOKENS)))
        for number in range(CALLS_PER_QUESTION):
            call = Item("call", texts.of(20), f"call_{turn}_{number}")
            requests.append((tuple(items), call))
            items += [call, Item("result", texts.of(RESULT_TOKENS), call.call_id)]
        answer = Item("assistant", texts.of(ANSWER_TOKENS))
        requests.append((tuple(items), answer))
        items.append(answer)
    return Trace(name, texts.of(SYSTEM_TOKENS), tuple(requests))


def traces(tokens: TokenCounter) -> list[Trace]:
    """Return the conversations that are measured; the first is the one that the bars are about."""
    return [
        plain_chat("plain chat", Texts(tokens, 1), SYSTEM_TOKENS),
        tool_loop("tool loop", Texts(tokens, 2)),
        plain_chat("long system text", Texts(tokens, 3), LONG_SYSTEM_TOKENS),
    ]


def install_knowledge(
    folder: Path, upstream_port: int, recorded: Sequence[Trace], tokens: TokenCounter
) -> Installation:
    """Return an installation with ten rules for everybody and three entries for each question of the traces."""
    folder.mkdir(parents=True)
    made = Installation(folder, free_port())
    # No holdout: a conversation that gets nothing costs nothing, and would only flatter the mean.
    write_config(made, upstream_port, more="[patterns]\nholdout = 0.0\n")
    config = load_config(made.config_path)
    embedder, now_s, texts = load_local_embedder(config.embedding), SystemClock().now_s(), Texts(tokens, 4)
    rules = [texts.of(RULE_TOKENS) for _ in range(N_RULES)]
    patterns = [
        ServedPattern(
            id=f"pat-{number}",
            type="response_format",
            dimension=f"bench:{number}",
            rule=rule,
            conditions=Conditions(),
            state="pinned",
            tokens=tokens.count(pattern_line(rule)),
            share=1.0,
            lift=0.1,
        )
        for number, rule in enumerate(rules)
    ]
    questions = {
        item.text for trace in recorded for items, _ in trace.requests for item in items if item.kind == "user"
    }
    with open_database(config.store) as db:
        ensure_default_tenant(db, now_s)
        with db.transaction():
            publish(db, DEFAULT_TENANT, plan=build_plan(patterns), actor=ACTOR, reason="bench", now_s=now_s)
            for question in sorted(questions):
                for _ in range(N_ENTRIES):
                    wording = compose(
                        [question] * 3, texts.of(ENTRY_ANSWER_TOKENS), ["bench"], embedder=embedder, tokens=tokens
                    )
                    create_context(
                        db,
                        DEFAULT_TENANT,
                        wording,
                        provenance="person",
                        source_chat_id=None,
                        actor=ACTOR,
                        now_s=now_s,
                        is_approved=True,
                    )
    return made


class KeepingUpstream(ThreadingHTTPServer):
    """An upstream that keeps every body and answers what it was told to."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[Json] = []
        self.reply: Json = {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: KeepingUpstream

    def do_POST(self) -> None:
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        reply = json.dumps(self.server.reply).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@contextmanager
def keeping_upstream() -> Iterator[KeepingUpstream]:
    with KeepingUpstream() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def play(trace: Trace, dialect: Dialect, port: int, upstream: KeepingUpstream) -> tuple[list[Json], list[Json]]:
    """Send *trace* through the proxy; return the bodies that the app sent, and those that arrived.

    Raises:
        RuntimeError: a request was refused.
    """
    sent = []
    upstream.bodies.clear()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for items, answer in trace.requests:
        sent.append(dialect.body(trace.system, items))
        upstream.reply = dialect.reply(answer)
        headers = {"Content-Type": "application/json", "Authorization": "Bearer sk-bench"}
        connection.request("POST", dialect.path, json.dumps(sent[-1]), headers)
        response = connection.getresponse()
        text = response.read()
        if response.status != 200:
            raise RuntimeError(f"{dialect.path} answered {response.status}: {text[:300]!r}")
    connection.close()
    return sent, list(upstream.bodies)


@dataclass(frozen=True)
class Learned:
    """The two blocks of text that one request got."""

    patterns: str
    knowledge: str


def learned_text(sent: Prompt, arrived: Prompt) -> Learned:
    """Return what the proxy added: to the system text, and behind the last user text."""
    return Learned(
        _added(_text(sent, "system"), _text(arrived, "system")), _added(_text(sent, "user"), _text(arrived, "user"))
    )


def _text(prompt: Prompt, role: str) -> str:
    """Return the text with this role, the blocks joined."""
    return "".join(block.text for block in prompt if block.role == role)


def _added(before: str, after: str) -> str:
    prefix = next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(before))
    return after[prefix : prefix + len(after) - len(before)]


Placement = Callable[[Prompt, Learned, int], Prompt]


def _in_system(prompt: Prompt, text: str, *, is_before: bool) -> Prompt:
    system, *others = prompt
    changed = text + system.text if is_before else system.text + text
    return [Block(system.role, changed, system.is_breakpoint), *others]


def _at_last_user(prompt: Prompt, text: str, *, is_before: bool) -> Prompt:
    index = max(index for index, block in enumerate(prompt) if block.role == "user")
    own = Block("user", text)
    place = index if is_before else index + 1
    return [*prompt[:place], own, *prompt[place:]]


def _turned(patterns: str, number: int) -> str:
    """Return the patterns as another draw would have them: other lines first."""
    lines = patterns.splitlines(keepends=True)
    frame, rules = lines[:4], lines[4:-1]
    turn = number % max(1, len(rules))
    return "".join([*frame, *rules[turn:], *rules[:turn], *lines[-1:]])


PLACEMENTS: dict[str, Placement] = {
    "both before the system text": lambda prompt, learned, _: _in_system(
        prompt, learned.patterns + learned.knowledge, is_before=True
    ),
    "both at the end of the system text, knowledge per turn": lambda prompt, learned, _: _in_system(
        prompt, learned.patterns + learned.knowledge, is_before=False
    ),
    "patterns drawn anew per request, knowledge after the last user text": lambda prompt, learned, number: (
        _at_last_user(
            _in_system(prompt, _turned(learned.patterns, number), is_before=False), learned.knowledge, is_before=False
        )
    ),
    "patterns sticky at the end of the system text, knowledge before the last user text": lambda prompt, learned, _: (
        _at_last_user(_in_system(prompt, learned.patterns, is_before=False), learned.knowledge, is_before=True)
    ),
}


@dataclass(frozen=True)
class Costs:
    """One trace through one API: the input's cost relative to no injection, by bill; and whether blocks kept still."""

    dialect: str
    trace: str
    ratios: dict[str, float]
    others: dict[str, dict[str, float]]  # placement -> bill -> ratio
    pattern_tokens: float
    knowledge_tokens: float
    n_pattern_blocks: int
    n_knowledge_blocks: int  # of one question, at most
    is_prefix_kept: bool


BILLS: dict[str, dict[str, Bill]] = {
    "chat": {FREE: free_writes, IMPLICIT: billed_implicit_writes},
    "responses": {FREE: free_writes, IMPLICIT: billed_implicit_writes},
    "messages": {MARKED: billed_writes},
}


def costs(trace: Trace, dialect: Dialect, sent: Sequence[Json], arrived: Sequence[Json], tokens: TokenCounter) -> Costs:
    """Return what the bodies that *arrived* cost, beside those that were *sent*."""
    plain, got = [dialect.prompt(body) for body in sent], [dialect.prompt(body) for body in arrived]
    learned = [learned_text(before, after) for before, after in zip(plain, got, strict=True)]
    placed = {
        name: [place(prompt, text, number) for number, (prompt, text) in enumerate(zip(plain, learned, strict=True))]
        for name, place in PLACEMENTS.items()
    }
    bills = BILLS[dialect.name]
    base = {name: bill(plain, tokens) for name, bill in bills.items()}
    by_question: dict[str, set[str]] = {}
    for (items, _), text in zip(trace.requests, learned, strict=True):
        question = next(item.text for item in reversed(items) if item.kind == "user")
        by_question.setdefault(question, set()).add(text.knowledge)
    return Costs(
        dialect=dialect.name,
        trace=trace.name,
        ratios={name: bill(got, tokens) / base[name] for name, bill in bills.items()},
        others={
            placement: {name: bill(prompts, tokens) / base[name] for name, bill in bills.items()}
            for placement, prompts in placed.items()
        },
        pattern_tokens=sum(tokens.count(text.patterns) for text in learned) / len(learned),
        knowledge_tokens=sum(tokens.count(text.knowledge) for text in learned) / len(learned),
        n_pattern_blocks=len({text.patterns for text in learned}),
        n_knowledge_blocks=max(map(len, by_question.values())),
        is_prefix_kept=all(
            _is_spliced(before, after, text) for before, after, text in zip(plain, got, learned, strict=True)
        ),
    )


def _is_spliced(before: Prompt, after: Prompt, learned: Learned) -> bool:
    """Return whether *after* is *before* with the learned text put in, and nothing else changed."""
    text = "".join(block.text for block in after)
    for added in (learned.patterns, learned.knowledge):
        if not added:
            return False
        text = text.replace(added, "", 1)
    return text == "".join(block.text for block in before)


def measure() -> list[Costs]:
    """Return the costs of every trace through every API into which the proxy puts anything."""
    tokens = load_token_counter()
    recorded = traces(tokens)
    with tempfile.TemporaryDirectory(prefix="tutelage-bench-") as name, keeping_upstream() as upstream:
        made = install_knowledge(Path(name) / "cache", upstream.server_address[1], recorded, tokens)
        command = tutelage_command(made.config_path)
        found = []
        with running(command, core=None, port=made.port, log=made.folder / "log"):
            for dialect in DIALECTS:
                for trace in recorded:
                    sent, arrived = play(trace, dialect, made.port, upstream)
                    if sent != arrived:  # else this API is passed through and nothing is learned from it
                        found.append(costs(trace, dialect, sent, arrived, tokens))
    return found


def run() -> Part:
    """Return what injection costs at the provider, and the bars on it."""
    return part(measure())


def part(found: Sequence[Costs]) -> Part:
    """Return the part of the page; the bars are about plain chat."""
    text = TEXT.format(
        free=FREE,
        implicit=IMPLICIT,
        marked=MARKED,
        user=USER_TOKENS,
        answer=ANSWER_TOKENS,
        system=f"{SYSTEM_TOKENS:,}",
        long=f"{LONG_SYSTEM_TOKENS:,}",
        machine=machine(),
    )
    header = ("API", "trace", "bill", "patterns", "knowledge", "**through the proxy**", *PLACEMENTS)
    rows = [
        [
            one.dialect,
            one.trace,
            bill,
            f"{one.pattern_tokens:.0f}",
            f"{one.knowledge_tokens:.0f}",
            f"**{ratio:.2f}x**",
            *(f"{one.others[placement][bill]:.2f}x" for placement in PLACEMENTS),
        ]
        for one in found
        for bill, ratio in one.ratios.items()
    ]
    missing = sorted({dialect.name for dialect in DIALECTS} - {one.dialect for one in found})
    if missing:
        text += f"\nNothing is put into these APIs' requests yet: {', '.join(missing)}.\n"
    return Part("cache", "Cache-stable injection", f"{text}\n{table(header, rows)}", bars(found))


def bars(found: Sequence[Costs]) -> list[Bar]:
    """Return the bars on the cost, each figure in the order of the APIs, and on what must keep still."""
    chat = [one for one in found if one.trace == "plain chat"]
    names = ", ".join(one.dialect for one in chat)
    free = [one.ratios[FREE] for one in chat if FREE in one.ratios]
    billed = [ratio for one in chat for bill, ratio in one.ratios.items() if bill != FREE]
    return [
        at_most("input cost of 10 turns to no injection, free writes", "at most 1.75x", FREE_LIMIT, free),
        at_most(f"the same, billed writes ({names})", "at most 1.7x", BILLED_LIMIT, billed),
        at_most(
            "pattern blocks in a conversation, the most of any trace",
            "1",
            1,
            [max(one.n_pattern_blocks for one in found)],
            "{:.0f}",
        ),
        at_most(
            "context blocks in a tool loop, the most of any question",
            "1",
            1,
            [max(one.n_knowledge_blocks for one in found)],
            "{:.0f}",
        ),
        at_least(
            "share of traces whose bodies are the app's own but for the two blocks",
            "all",
            1,
            [sum(one.is_prefix_kept for one in found) / len(found)],
            "{:.0%}",
        ),
    ]
