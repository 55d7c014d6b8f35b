"""Text without personal data: what identifies a person or opens a door is replaced by what kind of thing it was.

Rules, not a language model: they run before anything is sent to one. Prices, dates, times and order words stay. Names
are removed where the conversation declares them: by the messages' ``name`` field, or as "my name is ...".
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["EMAIL", "SECRET", "CARD", "IBAN", "IP", "ID", "PHONE", "ADDRESS", "NAME"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Personal data at ``text[start:end]``."""

    kind: Kind
    start: int
    end: int


def find_personal_data(text: str, names: Iterable[str] = ()) -> list[Finding]:
    """Return what is personal in *text*, in order and without overlaps; *names* are people's, as declared."""
    findings: list[Finding] = []
    for kind, start, end in [*_by_rules(text), *_by_names(text, names)]:
        if all(end <= other.start or start >= other.end for other in findings):
            findings.append(Finding(kind, start, end))
    return sorted(findings, key=lambda finding: finding.start)


def remove_personal_data(text: str, names: Iterable[str] = ()) -> str:
    """Return *text* with each piece of personal data replaced by its kind.

    >>> remove_personal_data("Write to ann@example.com or call +44 20 7946 0958, it costs $1,299.00.")
    'Write to [EMAIL] or call [PHONE], it costs $1,299.00.'
    """
    pieces = []
    position = 0
    for finding in find_personal_data(text, names):
        pieces += [text[position : finding.start], f"[{finding.kind}]"]
        position = finding.end
    return "".join([*pieces, text[position:]])


def declared_names(text: str) -> list[str]:
    """Return the names by which a writer introduces themselves.

    >>> declared_names("Hello, my name is Ann Lee and I forgot my password")
    ['Ann Lee']
    """
    return [match["name"] for match in _INTRODUCTION.finditer(text)]


def addressed_names(text: str) -> list[str]:
    """Return the name by which an answer greets its reader, if it does.

    >>> addressed_names("Hi Ann, refunds take five days."), addressed_names("Hello there! Open Settings.")
    (['Ann'], [])
    """
    greeted = _GREETED.match(text)
    return [greeted["name"]] if greeted and greeted["name"].split()[0] not in _NOBODY else []


def _luhn(text: str) -> bool:
    """Return whether the digits in *text* carry a card's check digit. Source: ISO/IEC 7812-1, annex B."""
    digits = [int(character) for character in text if character.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return len(digits) >= 13 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _iban(text: str) -> bool:
    """Return whether *text* carries an IBAN's check digits. Source: ISO 13616-1, annex A (mod 97)."""
    compact = re.sub(r"\s", "", text)
    moved = compact[4:] + compact[:4]
    return 15 <= len(compact) <= 34 and int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


def _ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _any(_: str) -> bool:
    return True


_STREETS: Final = (
    r"(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Way|Place|Pl|Square|Sq|Terrace"
    r"|Highway|Hwy|Parkway|Pkwy|Circle|Alley)\b"
)


@dataclass(frozen=True, slots=True)
class _Text:
    """A text with what most rules need before they can find anything: told once, far cheaper than the rules."""

    text: str
    n_digits: int
    longest_run: int  # characters without a space between them


def _read(text: str) -> _Text:
    return _Text(text, len(_DIGIT.findall(text)), max(map(len, text.split()), default=0))


@dataclass(frozen=True, slots=True)
class _Rule:
    """One way to find one kind; *may_match* is cheap and never false where *pattern* matches."""

    kind: Kind
    pattern: re.Pattern[str]
    may_match: Callable[[_Text], bool]
    is_real: Callable[[str], bool] = _any


_DIGIT: Final = re.compile(r"\d")
_OPENED: Final = re.compile(r"password|passcode|pin |pin:|secret is|api key|token is", re.IGNORECASE)
_OPENED_ASCII: Final = ("password", "passcode", "pin ", "pin:", "secret is", "api key", "token is")
_LONG_NUMBER: Final = re.compile(r"\d(?:[ ().-]{0,2}\d){6}")
_PLACED: Final = re.compile(r"\d [A-Z\d]|(?:straße|strasse|str\.|weg|platz|allee|gasse) \d")


def _may_open(read: _Text) -> bool:
    if not read.text.isascii():  # there other letters count as these in either case
        return _OPENED.search(read.text) is not None
    lower = read.text.lower()
    return any(word in lower for word in _OPENED_ASCII)


# In order: an earlier rule keeps what a later one would also match. Every repetition before a fixed part is bounded:
# the texts are strangers', and an unbounded one takes quadratic time.
_RULES: Final = (
    _Rule(
        "SECRET",
        re.compile(
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
            r"|\b(?:sk|pk|rk|tut)[-_][A-Za-z0-9_-]{16,}|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}"
            r"|\bxox[abeprs]-[A-Za-z0-9-]{10,}|\bAKIA[0-9A-Z]{16}\b|\bAIza[\w-]{35}\b"
            r"|\beyJ[\w-]{8,4000}\.[\w-]{8,4000}\.[\w-]{4,}|(?<=[Bb]earer )[\w.~+/-]{16,}=*",
            re.DOTALL,
        ),
        lambda t: t.longest_run >= 15 or "-----BEGIN" in t.text,  # the shortest key: xoxb- and 10 more
    ),
    _Rule(
        "SECRET",
        re.compile(
            r"(?i:(?<=password is )|(?<=password: )|(?<=password:)|(?<=passcode is )|(?<=\bpin is )|(?<=\bpin: )"
            r"|(?<=secret is )|(?<=api key is )|(?<=api key: )|(?<=token is ))"
            r"(?=\S*[\d!@#$%^&*])[^\s,;]{3,}(?<![.!?])"
        ),
        _may_open,
    ),
    _Rule("EMAIL", re.compile(r"[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+"), lambda t: "@" in t.text),
    _Rule(
        "IBAN",
        re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"),
        lambda t: t.n_digits >= 2,
        _iban,
    ),
    _Rule(
        "CARD",  # grouped as on cards, or in one piece
        re.compile(
            r"(?<![\w.,$€£-])(?:[2-6]\d{3}([ -])\d{4}\1\d{4}\1\d{1,7}|3[47]\d{2}[ -]?\d{6}[ -]?\d{5}|[2-6]\d{12,18})"
            r"(?![\w-]|\.\d)"
        ),
        lambda t: t.n_digits >= 13,
        _luhn,
    ),
    _Rule(  # US social security number
        "ID", re.compile(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])"), lambda t: t.n_digits >= 9 and "-" in t.text
    ),
    _Rule(
        "IP",
        re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.]*\d)"),
        lambda t: t.n_digits >= 4 and t.text.count(".") >= 3,
        _ip,
    ),
    _Rule(
        "IP",
        re.compile(r"(?<![\w:])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}(?![\w:])"),
        lambda t: t.text.count(":") >= 2,
        lambda found: len(found) > 3 and _ip(found),
    ),
    _Rule(
        "PHONE",
        re.compile(
            r"(?<![\w.])\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d(?:[ .-]?\d){5,12}(?!\d)"
            r"|(?<![\w.-])(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}(?![\d-])"
            r"|(?<![\w.-])0\d{2,4}[ /-]\d{5,8}(?![\d-])"
            r"|(?i:(?<=phone )|(?<=call )|(?<=call me at )|(?<=mobile )|(?<=tel )|(?<=tel: )|(?<=phone: )"
            r"|(?<=phone number is )|(?<=my number is )|(?<=phone is )|(?<=whatsapp )|(?<=text me at ))\d{7,13}(?!\d)"
        ),
        lambda t: t.n_digits >= 7 and _LONG_NUMBER.search(t.text) is not None,
    ),
    _Rule(
        "ADDRESS",
        re.compile(
            r"\b\d{1,6}(?:-\d{1,5})? (?:(?:North|South|East|West|[NSEW]\.?|[NS][EW]) )?"
            r"(?:(?:[A-Z][\w'.-]{0,40}|\d{1,3}(?:st|nd|rd|th)) ){1,4}"
            + _STREETS
            + r"(?:,? (?:Suite|Apt|Unit|#) ?[\w-]+)?"
            r"|\b[A-ZÄÖÜ][a-zäöüß]{1,40}(?:straße|strasse|str\.|weg|platz|allee|gasse) \d{1,4}[a-z]?\b"
        ),
        lambda t: t.n_digits >= 1 and _PLACED.search(t.text) is not None,
    ),
)
_GREETED: Final = re.compile(
    r"^\W*(?i:hi|hello|hey|dear|good (?:morning|afternoon|evening)),? "
    r"(?P<name>[A-Z][a-z'-]+(?: [A-Z][a-z'-]+)?)\s*(?=[,.!:\n-])"
)
_NOBODY: Final = frozenset(
    ("There", "Team", "Support", "All", "Everyone", "Again", "Customer", "Sir", "Madam", "Welcome", "Friend", "Folks")
)
_INTRODUCTION: Final = re.compile(
    r"\b(?i:my name is|my name's|i am called|this is)[ ](?P<name>[A-Z][\w'-]+(?:[ ][A-Z][\w'-]+){0,2})"
    r"(?=[ ](?:here|speaking|and|from|but)\b|[.,!?]|\s*$)"
)


def _by_rules(text: str) -> Iterator[tuple[Kind, int, int]]:
    read = _read(text)
    for rule in _RULES:
        if rule.may_match(read):
            for match in rule.pattern.finditer(text):
                if match.end() > match.start() and rule.is_real(match.group()):
                    yield rule.kind, match.start(), match.end()


def _by_names(text: str, names: Iterable[str]) -> Iterator[tuple[Kind, int, int]]:
    known = sorted({name.strip() for name in names if len(name.strip()) > 1}, key=len, reverse=True)
    for name in known:
        if name not in text:
            continue
        for match in re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", text):
            yield "NAME", match.start(), match.end()
