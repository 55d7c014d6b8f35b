"""The tenant's own words: what its replies call things, where ordinary English has another word for them or none.

Better none than a silly one. A term is written in lower case, or with an inner capital (``SmartBasket``), or it is an
acronym of three to six letters that the web at large does not know: names of people, places, days and months begin with
a capital and are none. It is no word of ordinary English, the user did not say it first, and many users have read it.
Acronyms that the web has one token for are words, shouts, or what everybody knows (PDF); those of business that not
everybody knows (SLA, ARR) are named here.
"""

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache
from itertools import chain, filterfalse
from typing import Final

import msgspec

from store.tokens import TokenCounter

NOT_READ: Final = "?"  # stands for the terms of a reply that was not searched for them
MAX_TERMS: Final = 20  # of a tenant, most used first
MAX_REPLY_TERMS: Final = 30  # of one reply
MIN_TERM_USERS: Final = 20  # different ones whose replies must hold a term
MAX_TERM_SHARE: Final = 0.4  # of replies that hold it: commoner is language
MIN_FORM_SHARE: Final = 0.95  # of a word's uses within sentences in lower case, or in one form with capitals
MAX_RARE: Final = 0.15  # share of words that are not ordinary: of another language every word would look like a term
CACHED_WORDS: Final = 50_000
QUOTES: Final = (("\u2018", "'"), ("\u2019", "'"), ("\u201c", '"'), ("\u201d", '"'))

_CODE: Final = re.compile(r"`(?:``.*?(?:```|\Z)|[^`\n]*`)", re.DOTALL)  # a block, else a span
_ADDRESS: Final = re.compile(r"//|@|www\.")
_WORD: Final = re.compile(r"(?<![\w'./-])[^\W\d_]{3,30}(?![\w/-]|['.]\w)")
_INNER_CAPITAL: Final = re.compile(  # SmartBasket, ProPlan, eSign; not McKinley, DeShawn, MacDonald, AnnMarie
    r"(?!(?:Mac|Van|Von|Vander|Del|Della|Des|Dos|Fitz|Saint|Ann|Anna|Mary|Marie|Jean|Juan|Lee|Sue)[A-Z])"
    r"[A-Z]?[a-z]{2,}[A-Z][a-z]+[A-Za-z]*|[a-z][A-Z][a-z]{2,}[A-Za-z]*"
)
_ACRONYM: Final = re.compile(r"[A-Z]{3,6}")
_BEFORE_WORD: Final = re.compile(r"[\w,;][\"'(]? [\"'(]?\Z")  # what stands before a word that begins no sentence
_PREFIXES: Final = ("un", "re", "non", "pre", "over", "under", "mis", "dis", "co", "sub", "multi")
_SUFFIXES: Final = ("s", "es", "d", "ed", "r", "er", "st", "est", "ing", "ly", "ness", "able", "less", "ful", "y")
MIN_STEM: Final = 3
_SMALL_ACRONYM: Final = 4  # letters up to which a token of the small letters alone (sla) is no word
_TRADE: Final = frozenset(  # acronyms of business for which cl100k has a token
    """ACH ACL ACV AHT AML AOV APR ARR ASN ATS BOM CAC CDP CLV CMS COB CPA CPC CPM CRM CSR CTA CTR DPA DSR EDI EMI EOD
    EOM ERP ETA ETD FTE GMV IVR KPI KYC LMS LTV MDM MFA MOQ MRR MSA NDA NPS OEM OKR OTB PIM PMS POC POS PPC PTO QBR RFI
    RFP RFQ RMA ROI ROAS SEO SIP SKU SLA SLO SME SOC SOP SOW SSO TAM TCO UAT VAT WIP""".split()  # noqa: SIM905
)


class Words(msgspec.Struct, frozen=True):
    """A text, code left out, as the words in it that say something."""

    prose: str
    n_pieces: int  # between blanks
    rare: tuple[str, ...]  # words that are not ordinary, in their order, each time that they come


class Ordinary:
    """Knows the words of ordinary English: those that cl100k_base, learned from the web, has one token for.

    Most pieces of text come again and again. What was seen once is looked up, and no loop in Python looks at pieces
    that are plain.
    """

    def __init__(self, tokens: TokenCounter) -> None:
        self._tokens = tokens
        self._plain: set[str] = set()  # pieces of text without a word that is not ordinary
        self._rare: dict[str, tuple[str, ...]] = {}  # others, with those words
        self.is_ordinary = lru_cache(maxsize=CACHED_WORDS)(self._is_ordinary)

    def read(self, text: str) -> Words:
        """Return the words of *text*."""
        prose = text if text.isascii() else _plain_quotes(text)
        if "`" in prose:
            prose = _CODE.sub(" ", prose)
        pieces = prose.split()
        strange = filterfalse(self._plain.__contains__, pieces)
        rare = tuple(chain.from_iterable(self._rare.get(piece) or self._look(piece) for piece in strange))
        return Words(prose, len(pieces), rare)

    def _look(self, piece: str) -> tuple[str, ...]:
        is_address = _ADDRESS.search(piece) is not None
        rare = () if is_address else tuple(word for word in _WORD.findall(piece) if not self.is_ordinary(word))
        if rare:
            if len(self._rare) < CACHED_WORDS:
                self._rare[piece] = rare
        elif len(self._plain) < CACHED_WORDS:
            self._plain.add(piece)
        return rare

    def _is_ordinary(self, word: str) -> bool:
        small = word.lower()
        if _ACRONYM.fullmatch(word):
            if word in _TRADE:
                return False
            if len(word) <= _SMALL_ACRONYM:
                return self._tokens.is_one(f" {word}") or self._tokens.is_one(f" {small.capitalize()}")
        elif self._tokens.is_one(f" {word}"):  # as the web writes it: iPhone
            return True
        if small.isascii():  # as almost all are
            known = self._tokens.words
            return small in known or not known.isdisjoint(_stems(small))
        return self._is_known(small) or any(self._is_known(stem) for stem in _stems(small))

    def _is_known(self, word: str) -> bool:
        return any(self._tokens.is_one(f" {form}") for form in (word, word.capitalize(), word.upper()))


def _stems(word: str) -> Iterable[str]:
    bare = [word, *(word[len(prefix) :] for prefix in _PREFIXES if word.startswith(prefix))]
    for one in bare:
        for stem in (one, *(one[: -len(suffix)] for suffix in _SUFFIXES if one.endswith(suffix))):
            doubled = stem[:-1] if stem[-2:-1] == stem[-1:] else stem  # plan, planning
            yield from (form for form in (stem, f"{stem}e", doubled, f"{stem[:-1]}y") if len(form) >= MIN_STEM)


def terms_in(words: Words, question: str) -> tuple[str, ...]:
    """Return what may be terms in a reply, as written; none for a reply that is not in English."""
    if not words.rare or len(words.rare) > MAX_RARE * words.n_pieces:
        return ()
    found = [word for word in dict.fromkeys(words.rare) if word.isascii() and _is_ever_within(words.prose, word)]
    if not found:
        return ()
    asked = {word.lower() for word in _WORD.findall(_plain_quotes(question))}
    return tuple(word for word in found if word.lower() not in asked)[:MAX_REPLY_TERMS]


def _plain_quotes(text: str) -> str:
    for curly, plain in QUOTES:  # most texts have none: translate() takes ten times as long
        text = text.replace(curly, plain)
    return text


def _is_ever_within(text: str, word: str) -> bool:
    """Return whether a word's capital, or the want of one, says something: not at the beginning of a sentence."""
    if word[0].islower():
        return True
    at = text.find(word)
    while at >= 0:
        if _BEFORE_WORD.search(text[max(at - 4, 0) : at]):
            return True
        at = text.find(word, at + 1)
    return False


def tenant_terms(terms: Sequence[str], users: Sequence[Hashable]) -> list[str]:
    """Return the tenant's terms, most used first: held by replies to many users and not by most replies.

    Args:
        terms: (n,) what may be terms in each reply, separated by spaces; ``NOT_READ`` counts for nothing.
        users: (n,) who read the reply, as names or codes.
    """
    replies = Counter(terms)
    sets = {text: frozenset(text.split()) for text in replies}
    forms: Counter[str] = Counter()
    for text, own in sets.items():
        for form in own:
            forms[form] += replies[text]
    most = MAX_TERM_SHARE * (len(terms) - replies[NOT_READ])
    chosen = [form for form, n in forms.items() if MIN_TERM_USERS <= n <= most and _is_term(form, forms)]
    readers: dict[str, set[Hashable]] = {form: set() for form in chosen}
    wanted = {text: hits for text, own in sets.items() if (hits := own & readers.keys())}
    for text, user in zip(terms, users, strict=True):
        for form in wanted.get(text, ()):
            readers[form].add(user)
    found = [form for form in chosen if len(readers[form]) >= MIN_TERM_USERS]
    return sorted(found, key=lambda form: (-forms[form], form))[:MAX_TERMS]


def _is_term(form: str, forms: Counter[str]) -> bool:
    if not (form.islower() or _INNER_CAPITAL.fullmatch(form) or _ACRONYM.fullmatch(form)):
        return False
    variants = (form.lower(), form.capitalize(), form.upper(), form)
    return forms[form] >= MIN_FORM_SHARE * sum(forms[one] for one in dict.fromkeys(variants))
