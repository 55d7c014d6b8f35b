"""Text without personal data: what identifies a person or opens a door is replaced by what kind of thing it was.

Rules, not a language model: they run before anything is sent to one. Prices, dates, times and order words stay. Names
are removed where the conversation declares them: by the messages' ``name`` field, by fields such as ``customer_name``
of a tool's answer, as "my name is ...", in a greeting or under a letter; the app's name for its user is one, too.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from learner.knowledge.personal_rules import Kind, by_rules


@dataclass(frozen=True, slots=True)
class Finding:
    """Personal data at ``text[start:end]``."""

    kind: Kind
    start: int
    end: int


def find_personal_data(text: str, names: Iterable[str] = ()) -> list[Finding]:
    """Return what is personal in *text*, in order and without overlaps; *names* are people's, as declared."""
    findings: list[Finding] = []
    is_taken = bytearray(len(text))
    for kind, start, end in [*by_rules(text), *_by_names(text, names)]:
        if not any(is_taken[start:end]):
            is_taken[start:end] = b"\x01" * (end - start)
            findings.append(Finding(kind, start, end))
    return sorted(findings, key=lambda finding: finding.start)


@dataclass(slots=True)
class Placeholders:
    """What stands for what in one conversation: the second phone number of it is ``[PHONE 2]``, wherever it stands."""

    _numbers: dict[Kind, dict[str, int]] = field(default_factory=dict)

    def of(self, kind: Kind, found: str) -> str:
        """Return what stands for *found*, however it is spaced; a first name stands for whoever has it."""
        known = self._numbers.setdefault(kind, {})
        key = "".join(filter(str.isalnum, found.casefold()))
        if kind == "NAME":
            key = next((name for name in known if key in name), key)
        number = known.setdefault(key, len(known) + 1)
        return f"[{kind}]" if number == 1 else f"[{kind} {number}]"


def remove_personal_data(text: str, names: Iterable[str] = (), placeholders: Placeholders | None = None) -> str:
    """Return *text* with each piece of personal data replaced by its kind; *placeholders* are its conversation's.

    >>> remove_personal_data("Write to ann@example.com or call +44 20 7946 0958, it costs $1,299.00.")
    'Write to [EMAIL] or call [PHONE], it costs $1,299.00.'
    """
    placeholders = Placeholders() if placeholders is None else placeholders
    pieces = []
    position = 0
    for finding in find_personal_data(text, names):
        pieces += [text[position : finding.start], placeholders.of(finding.kind, text[finding.start : finding.end])]
        position = finding.end
    return "".join([*pieces, text[position:]])


def declared_names(text: str) -> list[str]:
    """Return the names by which a writer introduces themselves.

    >>> declared_names("Hello, my name is Ann Lee and I forgot my password")
    ['Ann Lee']
    """
    return [
        match["name"] or match["caller"] or match["writer"] or match["field"] for match in _INTRODUCTION.finditer(text)
    ]


def addressed_names(text: str) -> list[str]:
    """Return the name by which an answer greets its reader, if it does.

    >>> addressed_names("Hi Ann, refunds take five days."), addressed_names("Hello there! Open Settings.")
    (['Ann'], [])
    """
    greeted = _GREETED.match(text)
    return [greeted["name"]] if greeted and greeted["name"].split()[0] not in _NOBODY else []


_GREETED: Final = re.compile(
    r"^\W*(?i:hi|hello|hey|dear|good (?:morning|afternoon|evening)),? "
    r"(?P<name>[A-Z][a-z'-]+(?: [A-Z][a-z'-]+)?)\s*(?=[,.!:\n-])"
)
_NOBODY: Final = frozenset(
    ("There", "Team", "Support", "All", "Everyone", "Again", "Customer", "Sir", "Madam", "Welcome", "Friend", "Folks")
)
_CAP: Final = r"[A-Z\u00c0-\u00d6\u00d8-\u00de]"
_INTRODUCTION: Final = re.compile(
    rf"\b(?i:my name is|my name's|i am called|mein name ist|ich hei(?:ß|ss)e|je m'appelle|me llamo|mi chiamo"
    rf"|(?:full name|account holder|card ?holder)(?: is|:))[ ](?P<name>{_CAP}[\w'-]+(?:[ ]{_CAP}[\w'-]+){{0,2}})"
    r"(?![\w'-])"
    rf"|\b(?i:this is)[ ](?P<caller>{_CAP}[\w'-]+(?:[ ]{_CAP}[\w'-]+){{0,2}})(?=[ ](?:here|speaking|calling|from)\b)"
    rf"|\b(?i:regards|sincerely|best wishes|yours|cheers)[,.]?\s{{1,4}}"
    rf"(?P<writer>{_CAP}[\w'-]+(?:[ ]{_CAP}[\w'-]+){{0,2}})\W{{0,4}}\Z"
    r'|"(?i:(?:first|last|full|customer|user|contact|holder)[_ ]?name)"\s{0,3}:\s{0,3}"(?P<field>[^"]{2,60})"'
)
# First and last names that are words too: alone they are no names.
_WORDS: Final = re.compile(
    r"Will|Mark|May|April|June|August|Grace|Hope|Faith|Joy|Rose|Art|Bill|Rich|Frank|Grant|Chase|Page|Price|Long|Short"
    r"|Young|King|White|Brown|Green|Black|Gray|Day|Case|Best|Good|Bank|Stone|Hill|Park|Street|Wood|Field|Ford|Cook|Baker"
    r"|Miller|Smart|Sales|Support|Guest|Client|Customer|User|The|Van|Von|Der|Den"
)
MIN_PART: Final = 3  # characters of a first or last name that is looked for alone


def _by_names(text: str, names: Iterable[str]) -> Iterator[tuple[Kind, int, int]]:
    whole = {name.strip() for name in names if len(name.strip()) > 1}
    parts = {part for name in whole for part in name.split() if len(part) >= MIN_PART and part.istitle()}
    known = sorted(whole.union(part for part in parts if not _WORDS.fullmatch(part)), key=len, reverse=True)
    for name in known:
        if name not in text:
            continue
        for match in re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", text):
            yield "NAME", match.start(), match.end()
