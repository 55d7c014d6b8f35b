"""What personal data looks like: a pattern for each kind, and the check digits that tell it from other numbers.

Phone numbers are judged by Google's metadata (``phonenumbers``), national ids and IBANs by their check digits
(``python-stdnum``). Every repetition before a fixed part is bounded: the texts are strangers', and an unbounded one
takes quadratic time.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

import phonenumbers
from phonenumbers import Leniency, NumberParseException, PhoneNumberMatcher
from stdnum import iban
from stdnum.be import nn
from stdnum.br import cpf
from stdnum.ch import ssn as ahv
from stdnum.cl import rut
from stdnum.cn import ric
from stdnum.es import dni, nie
from stdnum.fi import hetu
from stdnum.fr import nir
from stdnum.it import codicefiscale
from stdnum.kr import rrn
from stdnum.mx import curp
from stdnum.se import personnummer

Kind = Literal["EMAIL", "SECRET", "CARD", "IBAN", "IP", "ID", "PHONE", "ADDRESS", "NAME"]

# Countries whose numbers are known without "+", when grouped as they write them there.
REGIONS: Final = ("US", "GB", "DE", "FR", "IN", "BR", "AU", "ES")
NATIONAL_DIGITS: Final = range(9, 13)  # that a number of REGIONS has
MIN_ID_DIGITS: Final = 4  # of what follows "passport number"
MIN_ID_CHARS: Final = 6
DATE_DIGITS: Final = 8  # of a date, which may begin with 00 too
LOOK_BACK: Final = 40  # characters before a finding that may say that it is something else


@dataclass(frozen=True, slots=True)
class Clues:
    """A text with what most rules need before they can find anything: told once, far cheaper than the rules."""

    text: str
    lower: str
    n_digits: int
    longest_run: int  # characters without a space between them


def read_clues(text: str) -> Clues:
    """Return what there is to look for in *text*."""
    return Clues(text, text.lower(), len(_DIGIT.findall(text)), max(map(len, text.split()), default=0))


def _all(found: str) -> int:
    return len(found)


@dataclass(frozen=True, slots=True)
class Rule:
    """One way to find one kind; what stands in the pattern's group ``it``, or all of it, is personal."""

    kind: Kind
    pattern: re.Pattern[str]
    may_match: Callable[[Clues], bool]  # cheap, and never false where the pattern matches
    n_real: Callable[[str], int] = _all  # how many characters of what was found are such data; 0: it only looks so
    unless_after: re.Pattern[str] | None = None  # what stands before it and says that it is something else


def by_rules(text: str) -> Iterator[tuple[Kind, int, int]]:
    """Yield what is found in *text*, rule by rule; what an earlier rule finds, a later one may find again."""
    clues = read_clues(text)
    for rule in RULES:
        if not rule.may_match(clues):
            continue
        for match in rule.pattern.finditer(text):
            start, end = match.span("it") if "it" in rule.pattern.groupindex else match.span()
            before = text[max(start - LOOK_BACK, 0) : start]
            if end == start or (rule.unless_after and rule.unless_after.search(before)):
                continue
            if n_real := rule.n_real(text[start:end]):
                yield rule.kind, start, start + n_real


def _checked(is_valid: Callable[[str], bool], found: str) -> int:
    return len(found) if is_valid(found) else 0


def _luhn(text: str) -> bool:
    """Return whether the digits in *text* carry a card's check digit. Source: ISO/IEC 7812-1, annex B."""
    digits = [int(character) for character in text if character.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return len(digits) >= 14 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _iban(found: str) -> int:
    """Return how many characters of *found* are an IBAN: what follows one may look like its last group."""
    ends = (end for end in range(len(found), 14, -1) if found[end - 1] != " ")
    return next((end for end in ends if iban.is_valid(found[:end], check_country=False)), 0)


def _ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return len(text) > 3


def _phone(found: str) -> int:
    """Return how many characters of *found* are a phone number, as its country writes them."""
    n_digits = sum(map(str.isdigit, found))
    if found.startswith(("+", "00")):
        try:
            number = phonenumbers.parse("+" + found.removeprefix("00").lstrip("+"))
        except NumberParseException:
            return 0
        is_number = phonenumbers.is_possible_number if found[0] == "+" else phonenumbers.is_valid_number
        is_date = n_digits <= DATE_DIGITS and found[0] != "+"
        return len(found) if is_number(number) and not is_date else 0
    if found.isdigit() or ("(" in found) != (")" in found) or n_digits not in NATIONAL_DIGITS:
        return 0
    for region in REGIONS:
        if not _is_valid_in(found, region):  # a tenth of the time that it takes to compare groups
            continue
        matches = PhoneNumberMatcher(found, region, Leniency.STRICT_GROUPING)
        if any(match.start == 0 and match.end == len(found) for match in matches):
            return len(found)
    return 0


def _is_valid_in(found: str, region: str) -> bool:
    try:
        return phonenumbers.is_valid_number_for_region(phonenumbers.parse(found, region), region)
    except NumberParseException:
        return False


def _national_id(found: str) -> int:
    """Return how many characters of what follows the name of a document may be its number."""
    n_digits, n_chars = sum(map(str.isdigit, found)), sum(map(str.isalnum, found))
    return len(found) if n_digits >= MIN_ID_DIGITS and n_chars >= MIN_ID_CHARS else 0


_DIGIT: Final = re.compile(r"\d")
_LONG_NUMBER: Final = re.compile(r"\d(?:[ ().\-/]{0,3}\d){6}")
_ASCII: Final = re.ASCII | re.IGNORECASE
_NUMBERED: Final = re.compile(
    r"\b(?:order|part|ticket|invoice|case|sku|model|serial|tracking|parcel|lot|batch|policy|ref|reference|booking|item"
    r"|product|code|version|isbn|ean|coordinates|article)s?(?: (?:number|no\.?|nr\.?|id|code))?[ :#]*\Z",
    re.IGNORECASE,
)
_VERSIONED: Final = re.compile(
    r"\b(?:version|firmware|release|build|driver|kernel|chrome|firefox|safari|update|software|app|v)[ :]*v?\Z",
    re.IGNORECASE,
)
_KEYS: Final = (
    r"(?:pass(?:word|wort|wd|code|phrase)|kennwort|contrase\u00f1a|mot de passe|pwd?|pin|secret|otp|cvv|cvc"
    r"|(?:api|access|secret|private)[ _-]?(?:access[ _-]?)?(?:key|token|secret)|token"
    r"|(?:one-time|verification|security|login|access) code)"
)
_KEY_HINTS: Final = ("pass", "kennwort", "contrase", "pw", "pin", "secret", "otp", "cv", "key", "token", "code")
_DOCUMENTS: Final = (
    r"(?:ssn|social security|national insurance|ni|dni|nie|nif|codice fiscale|nir|steuer-?id(?:nummer)?|steuernummer"
    r"|bsn|pesel|cpf|aadhaa?r|pan|personnummer|hetu|cpr|sin|ahv|rijksregister\w{0,20}|curp|(?:national )?id(?:entity)?"
    r" card|national id|rrn|rut|passport|driv(?:ing|er'?s?) licen[cs]e|tax id|nhs)"
)
_DATE: Final = (
    r"(?:\d{1,4}[./-]\d{1,2}[./-]\d{1,4}"
    r"|(?:\d{1,2}(?:st|nd|rd|th)? )?(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}\.?"
    r"(?: \d{1,2}(?:st|nd|rd|th)?)?,? \d{4})"
)
_CAP: Final = r"[A-Z\u00c0-\u00d6\u00d8-\u00de]"
_STREETS: Final = (
    r"(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Way|Place|Pl|Square|Sq|Terrace"
    r"|Highway|Hwy|Parkway|Pkwy|Circle|Alley)\b"
)
_UK_CODE: Final = r"[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}\b"
_TOWN: Final = (
    rf"(?:,? (?:Suite|Apt|Unit|#)\.? ?[\w-]{{1,8}})?(?:(?:, {_CAP}[\w.'-]{{1,30}}(?: {_CAP}[\w.'-]{{1,30}}){{0,2}})?"
    rf",? (?:[A-Z]{{2}} \d{{5}}(?:-\d{{4}})?|{_UK_CODE}))?"
)


def _has(*hints: str) -> Callable[[Clues], bool]:
    return lambda clues: any(hint in clues.lower for hint in hints)


def _digits(n: int, *hints: str) -> Callable[[Clues], bool]:
    return lambda clues: clues.n_digits >= n and all(hint in clues.text for hint in hints)


# In order: an earlier rule keeps what a later one would also match.
RULES: Final = (
    Rule(
        "SECRET",
        re.compile(
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
            r"|\b(?:sk|pk|rk|tut)[-_][A-Za-z0-9_-]{16,}|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}"
            r"|\bglpat-[\w-]{16,}|\b(?:npm|hf)_[A-Za-z0-9]{20,}|\bSG\.[\w-]{16,32}\.[\w-]{16,}"
            r"|\bxox[abeprs]-[A-Za-z0-9-]{10,}|\bAKIA[0-9A-Z]{16}\b|\bAIza[\w-]{35}\b"
            r"|\beyJ[\w-]{8,4000}\.[\w-]{8,4000}\.[\w-]{4,}|(?<=[Bb]earer )[\w.~+/-]{16,}=*"
            r"|(?<=[Aa]uthorization: [Bb]asic )[A-Za-z0-9+/]{8,}=*",
            re.DOTALL,
        ),
        lambda t: t.longest_run >= 15 or "-----BEGIN" in t.text or "asic " in t.text,  # xoxb- and 10 more is shortest
    ),
    Rule(
        "SECRET",
        re.compile(r"://[^\s:/@]{1,100}:(?P<it>[^\s@/]{1,100})@"),
        lambda t: "://" in t.text and "@" in t.text,
    ),
    Rule(
        "SECRET",
        re.compile(
            rf"(?<![a-z0-9]){_KEYS}[\"']?(?: is:? | ist:? |\s{{0,3}}[:=]\s{{0,3}}| )[\"']?"
            r"(?=[^\s\"',;]*[\d!@#$%^&*])(?P<it>(?<=[:=\"' ])[^\s\"',;]{3,200}(?<![.!?]))",
            _ASCII,
        ),
        _has(*_KEY_HINTS),
        unless_after=re.compile(
            r"(?<![A-Za-z0-9])(?i:pass\w{4,6}|kennwort|pwd?|pin|secret|token|key|code|otp) \Z"  # "the pin 4 times"
        ),
    ),
    Rule(
        "EMAIL",
        re.compile(r"[\w.+%'-]{1,64}@(?:[\w-]{1,63}\.){1,8}(?:xn--[\w-]{2,59}|[^\W\d_]{2,24})(?![\w-])"),
        lambda t: "@" in t.text,
    ),
    Rule(
        "EMAIL",
        re.compile(
            r"[\w.+-]{1,64}(?: ?[\[(]at[\])] ?[\w-]{1,63}(?: ?(?:\.|[\[(]dot[\])]) ?[\w-]{1,63}){1,4}"
            r"| at [\w-]{1,63}(?: dot [\w-]{2,63}){1,4})(?![\w-])",
            _ASCII,
        ),
        _has("(at)", "[at]", " dot "),
    ),
    Rule(
        "IBAN",
        re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b", _ASCII),
        _digits(2),
        _iban,
    ),
    Rule(
        "CARD",  # grouped as on cards, or in one piece; 13 digits are an article's
        re.compile(
            r"(?<![\w.,$€£-])(?:[2-6]\d{3}([ -])\d{4}\1\d{4}\1\d{1,7}|3[47]\d{2}[ -]?\d{6}[ -]?\d{5}"
            r"|3[0689]\d{2}[ -]?\d{6}[ -]?\d{4}|4\d{15}(?:\d{3})?|[256]\d{15}|35\d{14}|6\d{17,18})"
            r"(?![\w-]|\.\d)"
        ),
        _digits(13),
        partial(_checked, _luhn),
    ),
    Rule("ID", re.compile(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])"), _digits(9, "-")),  # US social security number
    Rule(
        "ID",
        re.compile(
            rf"(?<![a-z]){_DOCUMENTS}(?: (?:number|no\.?|nr\.?|card))?(?: is| was| ist|:| ?=| é)?[ #]{{1,2}}"
            r"(?P<it>(?-i:[A-Z]{0,6}\d[A-Z0-9]{0,20}(?:[ .-][A-Z0-9]{0,4}\d[A-Z0-9]{0,12}){0,6}(?: [A-Z]\b)?"
            r"|[A-Z]{2} \d{2} \d{2} \d{2} [A-D]\b))",
            re.IGNORECASE,
        ),
        _digits(4),
        _national_id,
    ),
    Rule(
        "ID",
        re.compile(
            rf"\b(?:born on|geboren am|(?:date of birth|dob|birthday)(?: is|:)?) (?P<it>{_DATE})(?![\w-])", _ASCII
        ),
        _digits(4),
    ),
    Rule("ID", re.compile(r"\b[A-Z]{2} \d{2} \d{2} \d{2} [A-D]\b"), _digits(6)),  # UK national insurance number
    *(
        Rule("ID", re.compile(rf"(?<![\w.-])(?:{pattern})(?![\w-]|\.\d)"), _digits(n), partial(_checked, is_valid))
        for pattern, n, is_valid in (
            (r"\d{8}-?[A-Z]", 8, dni.is_valid),
            (r"[XYZ]-?\d{7}-?[A-Z]", 7, nie.is_valid),
            (r"[A-Z]{6}[\dLMNP-V]{2}[A-Z][\dLMNP-V]{2}[A-Z][\dLMNP-V]{3}[A-Z]", 1, codicefiscale.is_valid),
            (r"[12] ?\d{2} ?\d{2} ?\d[\dAB] ?\d{3} ?\d{3} ?\d{2}", 13, nir.is_valid),
            (r"\d{3}\.\d{3}\.\d{3}-\d{2}", 11, cpf.is_valid),
            (r"[A-Z]{4}\d{6}[A-Z]{6}[A-Z\d]\d", 7, curp.is_valid),
            (r"\d{17}[\dX]", 17, ric.is_valid),
            (r"\d{6}[-+A]\d{3}[\dA-Y]", 9, hetu.is_valid),
            (r"\d{6}[-+]\d{4}", 10, personnummer.is_valid),
            (r"756\.\d{4}\.\d{4}\.\d{2}", 13, ahv.is_valid),
            (r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}", 11, nn.is_valid),
            (r"\d{6}-\d{7}", 13, rrn.is_valid),
            (r"\d{1,2}\.\d{3}\.\d{3}-[\dkK]", 7, rut.is_valid),
        )
    ),
    Rule(
        "IP",
        re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.]*\d)"),
        lambda t: t.n_digits >= 4 and t.text.count(".") >= 3,
        partial(_checked, _ip),
        _VERSIONED,
    ),
    Rule(
        "IP",
        re.compile(r"(?<![\w:])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}(?![\w:])"),
        lambda t: t.text.count(":") >= 2,
        partial(_checked, _ip),
    ),
    Rule(  # of a device
        "IP",
        re.compile(
            r"(?<![\w:-])[0-9A-F]{2}([:-])[0-9A-F]{2}(?:\1[0-9A-F]{2}){4}(?![\w:-])",
            _ASCII,
        ),
        lambda t: t.text.count(":") >= 5 or t.text.count("-") >= 5,
    ),
    Rule(
        "PHONE",
        re.compile(r"(?<![\w.,$€£/+-])(?:\+|00|\()?\(?\d(?:[ ().\-/]{0,3}\d){6,15}(?![\w-]|[.,/]\d)"),
        lambda t: t.n_digits >= 7 and _LONG_NUMBER.search(t.text) is not None,
        _phone,
        _NUMBERED,
    ),
    Rule(
        "PHONE",
        re.compile(
            r"\b(?:phone|call|call me at|mobile|cell|tel|fax|telefon|handy|phone number is|my number is|phone is"
            r"|whatsapp|text me at|reach me (?:at|on))\.?:? (?P<it>\d(?:[ /-]?\d){6,12})(?![\w-]|[.,]\d)",
            _ASCII,
        ),
        _digits(7),
    ),
    Rule(
        "ADDRESS",
        re.compile(
            r"\b\d{1,6}[A-Za-z]?(?:-\d{1,5})? "
            r"(?!(?:Hours?|Days?|Minutes?|Months?|Years?|Steps?|Stars?|Ways?|New Square)\b)"
            r"(?:(?:North|South|East|West|[NSEW]\.?|[NS][EW]) )?"
            r"(?:(?:[A-Z][\w'.-]{0,40}|\d{1,3}(?:st|nd|rd|th)) ){1,4}" + _STREETS + rf"(?:\.(?=,))?{_TOWN}"
            r"|\b[A-ZÄÖÜ][a-zäöüß]{1,40}(?:straße|strasse|str\.|weg|platz|allee|gasse) \d{1,4}[a-z]?\b"
            r"(?:, \d{5} [A-ZÄÖÜ]\w{1,30})?"
            rf"|\b\d{{1,4}}(?: ?bis| ?ter)?,? (?i:rue|avenue|boulevard|place|chemin|allée|impasse|quai) "
            rf"(?:d[eu]s? (?:la )?|d'|de l')?{_CAP}[\w'-]{{1,30}}(?: {_CAP}[\w'-]{{1,30}}){{0,3}}"
            rf"|\b(?:Calle|Avenida|Avda\.?|Plaza|Paseo|Via|Viale|Piazza|Corso|Rua) (?:{_CAP}[\w'-]{{1,30}} ){{1,3}}"
            r"\d{1,4}\b(?! ?(?:hours?|days?|min|%|\d))"
            r"|\b[Pp]\.?[Oo]\.? Box \d{1,6}\b"
        ),
        _digits(1),
    ),
    Rule(
        "ADDRESS",
        re.compile(rf"\b(?i:post ?code|zip(?: code)?)(?: is|:)? (?P<it>{_UK_CODE}|\d{{5}}(?:-\d{{4}})?\b)"),
        _digits(2),
    ),
)
