"""What a conversation is about when a question does not say it: a name that an answer brought up before."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from learner.knowledge.language import STOPWORDS

MAX_BEFORE_CHARS: Final = 80  # of what stands before a name; a stranger's long text must not take quadratic time
# What a concierge's conversation turns to: "the hotel" is no subject of its own to somebody who was not there.
THING: Final = (
    r"(?:movie|film|song|track|album|restaurant|hotel|hostel|salon|apartment|house|place|venue|event|show|concert|game"
    r"|match|bus|train|flight|car|ride|cab|taxi|doctor|dentist|therapist|attraction|museum|property|playlist|artist)"
)
_WORD: Final = r"(?:[A-Z][\w'’&.-]*[\w'’]|[A-Z&]|\d+)"  # noqa: RUF001
_LINK: Final = r"(?:of|the|and|in|at|by|de|la|del|for|&|-)"
_ENDING: Final = r"(?:bistro|cafe|bar|grill|kitchen|diner|salon|hotel|hostel|inn|theat(?:re|er)|museum|park|view|city)"
_NAME: Final = re.compile(
    rf"(?<![\w'’$])(?:\d+(?:st|nd|rd|th)? )?[A-Z][\w'’-]*(?: {_WORD}| {_LINK} (?=[A-Z]){_WORD})*(?: {_ENDING}\b)?"  # noqa: RUF001
)
_MOMENT: Final = re.compile(
    r"\b(?:(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day|January|February|March|April|May|June|July|August|September"
    r"|October|November|December)\b.*"
)
_PLACED: Final = re.compile(r"\b(?:in|to|from|near|around|on|located at|out|at(?: the)?|(?<!stop )by)$", re.IGNORECASE)
_STAY: Final = re.compile(r"\b(?:table|room|reservation|apartment|stay|property)\b.*\bat(?: the)?$", re.IGNORECASE)
_CALLED: Final = re.compile(r"\b(?:called|named|titled)$", re.IGNORECASE)
_CATEGORY: Final = re.compile(r"\b(?:an?|some|any|album|phone|type|category)$", re.IGNORECASE)
# Of one evening: nobody asks about it again.
_OCCASION: Final = re.compile(r"\b(?:events?|concerts?|games?|match|tickets?|flights?|vs)\b", re.IGNORECASE)
# "Do you want Mexican or Italian?" names no subject yet.
_CHOICE: Final = re.compile(
    r"\b(?:what|which|where|when|how many|any)\b.*\?|\b(?:do|would|did) you (?:want|like|prefer|mean|need"
    r"|have)\b.*\bor\b"
    r"|\bsuch as\b|\bfor example\b|\b(?:kinds?|types?) of\b",
    re.IGNORECASE,
)
_TAIL: Final = re.compile(r"(?: (?:of|the|and|in|at|by|on|for|-))+$")
_SENTENCE_END: Final = re.compile(r"(?<=[.!?])\s+")
_SENTENCE_STARTS: Final = (
    "found event sorry please confirm confirming booking playing transferring next sure how there another good great"
    " monday tuesday wednesday thursday friday saturday sunday"
)
_NO_NAME: Final = STOPWORDS.union(_SENTENCE_STARTS.split())


@dataclass(frozen=True, slots=True)
class Subject:
    """A thing that was named, and the place it is in when that was said too."""

    name: str
    place: str
    is_only: bool  # nothing else was named beside it

    @property
    def text(self) -> str:
        return f"{self.name} in {self.place}" if self.place and self.place not in self.name else self.name


def subject(text: str) -> Subject | None:
    """Return what *text* names that a later question may lean on; None when that is unclear.

    A name of several words, or of one that is said to be a name. What follows "in" or "to" is a place, not a subject.

    >>> subject("There is a restaurant called Golden Gate Pizza that is located in San Francisco.").text
    'Golden Gate Pizza in San Francisco'
    >>> subject("I found 7 restaurants in San Francisco. Should I book one?")
    """
    names: list[str] = []
    called: list[str] = []
    places: list[str] = []
    for sentence in _SENTENCE_END.split(text):
        if _OCCASION.search(sentence) or _CHOICE.search(sentence):
            continue
        for before, name in _named(sentence):
            if _PLACED.search(before) and not _STAY.search(before):
                if before.lower().endswith(("in", "near")) and name[0].isalpha():
                    places.append(name)
            elif _CALLED.search(before):
                called.append(name)
            elif not _CATEGORY.search(before) and " " in name:
                names.append(name)
    found = called or names
    if not found:
        return None
    return Subject(found[0], places[0] if places else "", len({*called, *names}) == 1)


def _named(sentence: str) -> Iterator[tuple[str, str]]:
    """Yield the names in *sentence*, each with what stands before it."""
    for match in _NAME.finditer(sentence):
        name = _TAIL.sub("", _MOMENT.sub("", match.group()).strip(" .'-&"))
        before = sentence[max(match.start() - MAX_BEFORE_CHARS, 0) : match.start()].rstrip()
        if len(name) > 1 and not before.endswith("[") and _is_name(name):
            yield before, name


def _is_name(name: str) -> bool:
    """Return whether capitals make a name, not the beginning of a sentence: "Should I", "It's 4850"."""
    words = name.lower().replace("\u2019", "'").split()
    if words[0] == "the":
        words = words[1:]
    return bool(words) and words[0] not in _NO_NAME and not words[0].endswith(("'s", "'ll", "'d", "'re"))
