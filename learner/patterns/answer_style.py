"""How a reply is built up, and what it ends with."""

import re
from collections.abc import Iterable
from typing import Final

from learner.patterns.reply_text import Read, has_any, span_of

_SUMMARY: Final = re.compile(
    r"\W*(?:in short|in brief|in summary|(?:quick |executive )?summary|tl;?dr|(?:the )?short answer|bottom line"
    r"|key takeaways?)\b",
    re.IGNORECASE,
)
_NUMBERED: Final = re.compile(
    r"^\s{0,6}(?:\d{1,2}[.)]|[-*+]?\s*\**step\s+\d{1,2}\b[:.)*\s-]*)\s*\W{0,4}(\w*)", re.MULTILINE
)
_ITEM: Final = re.compile(r"\n(?=[^\S\n]{0,6}(?:\d|[-*+]?\s*\**step))")
_DIGIT_LINE: Final = re.compile(r"\n(?=[^\S\n]{0,6}\d)")  # of which _ITEM finds all where no step is named
_STEP: Final = re.compile(r"^\W{0,8}step\s+\d{1,2}\b", re.MULTILINE)
_FIRST_THEN: Final = re.compile(
    r"(?:^|[.!\n]\s*)first(?:ly)?,.{1,600}\b(?:then|next|second(?:ly)?)\b.{1,800}\bfinally\b", re.DOTALL
)
_ACTIONS: Final = frozenset(
    """add adjust allow apply ask attach boil bring build call change check choose clean click clone close combine
    compare complete configure confirm connect contact copy create cut decide define delete deploy determine disconnect
    download drag edit enable ensure enter export fill find follow gather get give go heat hold identify import
    insert install keep launch let locate log look make mix move navigate open pay pick place plug pour press
    provide pull push put read reboot remove repeat replace reset restart return review run save scan scroll
    search select send set sign start stir stop submit switch take tap test toggle try turn type uninstall
    unplug update upload use verify visit wait wipe write""".split()  # noqa: SIM905 - readable
)
_EXAMPLES: Final = ("for example", "for instance", " e.g.", "(e.g.", "here's an example", "here is an example")
_EXAMPLE_HINTS: Final = frozenset(("example", "instance", "e.g."))
_EXAMPLE: Final = re.compile(r"^\W{0,8}example\b[^\n]{0,40}:", re.MULTILINE)
_LISTED: Final = re.compile(
    r"^\W{0,8}(?:sources?|references?)\b\W*:|^\W{0,8}#\s*(?:sources?|references?)\s*$|\(source: ", re.MULTILINE
)
_ACCORDING: Final = re.compile(
    r"according to (?:the|our) (?:documentation|docs|manual|policy|handbook|guide|report|data)"
)
_WORD_CHARACTER: Final = re.compile(r"\w")
_SOURCE_HINTS: Final = frozenset(("source", "reference", "according"))
_NOTE_MARK: Final = re.compile(r"\[(?<=[ .,]\[)\^?\d{1,2}\](?!\()")
_CAVEAT: Final = re.compile(
    r"\bnote that\b|\bplease note\b|^\W{0,8}note\W{0,4}:|\b(?:keep|bear) in mind\b|\bcaveats?\b"
    r"|\b(?:i'm|i am|this|we) assum|\bassuming that\b",
    re.MULTILINE,
)
_CAVEAT_HINTS: Final = frozenset(("note", "mind", "caveat", "assum"))
_CLARIFYING: Final = re.compile(
    r"\b(?:which|what|who|when|where|how many|how much|do you (?:mean|have|want|prefer)|are you|did you"
    r"|is (?:it|this|that)|(?:could|can|would) you (?:please )?(?:clarify|tell|specify|share|provide|say))\b"
    r"[^?]{0,200}\?\W*\Z"
)
_CLARIFYING_CHARS: Final = 300  # a reply that is hardly more than its question


def strategy(read: Read) -> tuple[str, ...] | None:
    """Return how the reply is built up, None for one without a text."""
    if not read.reply.text:
        return None
    lower, prose = read.lower, read.prose
    found = []
    if _SUMMARY.match(prose):
        found.append("summary_first")
    if _is_stepwise(prose, read.hints):
        found.append("step_by_step")
    hints = read.hints
    if not hints.isdisjoint(_EXAMPLE_HINTS) and (
        has_any(prose, _EXAMPLES) or _is_within(_EXAMPLE, prose, ("example",), 8, 60)
    ):
        found.append("example")
    if (
        len(lower) <= _CLARIFYING_CHARS
        and lower.rstrip().endswith("?")
        and not _offers(lower)
        and _CLARIFYING.search(lower)
    ):
        found.append("clarify")
    if ("[" in prose and _NOTE_MARK.search(prose)) or (
        not hints.isdisjoint(_SOURCE_HINTS) and _names_sources(prose, hints & _SOURCE_HINTS)
    ):
        found.append("sources")
    # The usual form first, by a plain search.
    if not hints.isdisjoint(_CAVEAT_HINTS) and (
        " note that " in prose or _is_within(_CAVEAT, prose, hints & _CAVEAT_HINTS, 10, 20)
    ):
        found.append("caveats")
    return tuple(found)


def _names_sources(prose: str, hints: frozenset[str]) -> bool:
    """Return whether *prose* says where what it tells comes from; of the words for that it holds *hints* alone."""
    at = prose.find("according to ") if "according" in hints else -1
    while at >= 0:
        if (at == 0 or not _WORD_CHARACTER.match(prose, at - 1)) and _ACCORDING.match(prose, at):
            return True
        at = prose.find("according to ", at + 1)
    return _is_within(_LISTED, prose, hints - {"according"}, 10, 60)


def _is_stepwise(prose: str, hints: frozenset[str]) -> bool:
    if "finally" in hints and "first" in prose and _FIRST_THEN.search(prose):
        return True
    if "2" not in prose or "1" not in prose:
        return False
    steps = span_of(prose, ("step",), 8, 20) if "step" in hints else None
    if steps is not None and len(_STEP.findall(prose, *steps)) >= 2:
        return True
    if "step" not in hints and len(_DIGIT_LINE.findall(f"\n{prose}")) < 2:  # half as long as what comes then
        return False
    numbered = _numbered(prose)
    return len(numbered) >= 2 and 2 * sum(word in _ACTIONS for word in numbered) > len(numbered)


def _numbered(prose: str) -> list[str]:
    """Return the first word of each numbered item, as ``_NUMBERED`` finds them line by line."""
    found, end = [], 0
    for line in _ITEM.finditer(f"\n{prose}"):  # a pattern that begins with one character is looked for at once
        start = line.start()
        match = _NUMBERED.match(prose, start) if start >= end else None
        if match is not None:
            found.append(match[1])
            end = match.end()
    return found


def _is_within(pattern: re.Pattern[str], text: str, hints: Iterable[str], before: int, after: int) -> bool:
    """Return whether *pattern*, which holds one of *hints*, is found in *text*; see ``span_of`` for its reach."""
    span = span_of(text, hints, before, after)
    return span is not None and pattern.search(text, *span) is not None


def _offers(text: str) -> bool:
    """Return whether the last line of *text* offers something."""
    return _OFFER.search(text, text.rfind("\n") + 1) is not None


_OFFER: Final = re.compile(
    r"\b(?:would you like|do you want|do you need|shall i|should i|want me to|may i|can i help)\b[^\n]*\Z"
)
_CLOSING: Final = re.compile(
    r"\b(?:let me know|feel free to|hesitate to|(?:happy|glad|here) to help|hope (?:this|that) helps)\b[^\n?]*\Z"
)
_CLOSING_HINTS: Final = frozenset(("let me know", "feel free", "hesitate", "to help", "helps"))
_NEXT_LINE: Final = re.compile(
    r"\n\W*(?:(?:suggested |recommended |possible )?next steps?|(?:related|follow-up|suggested) questions"
    r"|what you (?:can|could) do next|you (?:could|can|may|might) also (?:ask|try|explore|want))\b"
)
_NEXT: Final = re.compile(
    r"you (?<!\wyou )(?:could|may|might) also (?:ask|try|want to|explore|consider|be interested)\b"
)
_NEXT_HINTS: Final = frozenset(("next step", "questions", "do next", " also "))
_QUESTIONS: Final = re.compile(r"^\s*(?:[-*+•]|\d{1,2}[.)])\s[^\n]*\?\W*$", re.MULTILINE)


def follow_up(read: Read) -> tuple[str, ...] | None:
    """Return what the reply ends with, None for one without a text."""
    tail = read.tail
    if not tail:
        return None
    if has_any(tail, read.hints & _NEXT_HINTS) and (_NEXT.search(tail) or _NEXT_LINE.search(f"\n{tail}")):
        return ("suggestions",)
    if tail.count("?") >= 2 and len(_QUESTIONS.findall(tail)) >= 2:
        return ("suggestions",)
    end = tail.rstrip(")\"'*_ ")
    if end.endswith("?") or ("?" in tail and _offers(tail)):
        return ("question",)
    start = max(tail.rfind("\n"), tail.rfind("?")) + 1
    return ("offer",) if has_any(tail, read.hints & _CLOSING_HINTS) and _CLOSING.search(tail, start) else ("none",)
