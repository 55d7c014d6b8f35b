"""What rules can see in any text: its content words, its specifics, thanks and complaints, moments and insults.

English, like the local embedding. Rules here only rank and screen; a person decides. ``answers.py`` and
``questions.py`` read the two halves of an exchange with them.
"""

import re
from typing import Final

_WORD: Final = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")  # noqa: RUF001  # both apostrophes occur
_STOPWORDS: Final = (
    "a about after all also am an and any are as at be because been before but by can could did do does "
    "doing done for from get give go going got had has have having he hello help her here hey hi him his "
    "how i i'd i'll i'm i've if in into is it it's its just know let let's like looking make may me might "
    "more my need no not now of off ok okay on one only or other our out over please she should so some "
    "such sure tell than thank thanks that that's the their them then there there's these they they're "
    "this those to too up us very want was we well were what what's when where which who why will with "
    "would yes you you'd you're your find search show"
)
STOPWORDS: Final = frozenset(_STOPWORDS.split())
_THANKS: Final = re.compile(
    r"\b(?:thank(?:s| you)?|thx|appreciate|perfect|great|excellent|awesome|wonderful|solved|worked|works now|helpful"
    r"|that helps|that'?s (?:all|it|right|correct|good|great|perfect)|sounds? (?:good|great|perfect|nice))\b",
    re.IGNORECASE,
)
_AGAINST: Final = re.compile(
    r"\b(?:wrong|incorrect|not (?:right|correct|true|working|helpful|what|solved)|(?:doesn'?t|does not|didn'?t|did not)"
    r" (?:work|help)|useless|terrible|still (?:not|broken|does ?n'?t|can'?t|waiting)|no(?:,|\.) (?:that|it|i)"
    r"|complain|ridiculous|speak to a (?:human|person|manager))\b",
    re.IGNORECASE,
)
# What was wrong may be what somebody asks about, or be over.
_NOT_AGAINST: Final = re.compile(
    r"\bno(?:,|\.) (?:that|it)(?:'?s| is| was| will be)? (?:all|it|everything|fine|perfect|great|good)\b"
    r"|\bno(?:,|\.) i(?:'m| am) (?:good|fine|all set|happy)\b|\bwas wrong\b.{0,20}\b(?:works|solved|fixed)\b",
    re.IGNORECASE,
)
_MONTHS: Final = r"(?:january|february|march|april|may|june|july|august|september|october|november|december)"
# What is true only today, or only of one moment.
_PASSING: Final = re.compile(
    r"\b(?:today|tonight|tomorrow|yesterday|that day|chance of rain|forecast|average temperature|degrees"
    r"|next (?:week|month|monday|tuesday|wednesday|thursday|friday|saturday|sunday)"
    r"|this (?:week|weekend|month|morning|afternoon|evening)|right now|at the moment|momentarily"
    r"|currently (?!support|offer|accept|ship|deliver|available in)"
    rf"|\d{{1,2}}(?:st|nd|rd|th)?(?: of)? {_MONTHS}|{_MONTHS} \d{{1,2}}(?:st|nd|rd|th)?|the \d{{1,2}}(?:st|nd|rd"
    rf"|th))\b",
    re.IGNORECASE,
)
_CLOCK: Final = re.compile(r"\b\d{1,2}(?::\d\d)? ?[ap]\.?m\b|\b\d{1,2}:\d\d\b", re.IGNORECASE)
# Times of day that come again: opening hours, closing times, what happens until when.
_REGULAR: Final = re.compile(
    r"\b(?:open(?:s|ed|ing)?|close[sd]?|closing|hours|weekdays?|weekends?|daily|every|each|check-? ?(?:in|out)|before"
    r"|until"
    r"|by|after|(?:mon|tues|wednes|thurs|fri|satur|sun)days?|always)\b",
    re.IGNORECASE,
)
_OFFENCE: Final = re.compile(
    r"\b(?:idiots?|stupid|moron|dumb|shut up|fuck\w*|shit\w*|bullshit|asshole|bastard|bitch|crap|damn)\b", re.IGNORECASE
)
_PLACEHOLDER: Final = re.compile(r"\[(?:EMAIL|SECRET|CARD|IBAN|IP|ID|PHONE|ADDRESS|NAME)(?: \d{1,4})?\]")
MAX_THANKS_WORDS: Final = 25


def words(text: str) -> list[str]:
    """Return the words of *text* in lower case.

    >>> words("What's the price, in U.S. $?")
    ["what's", 'the', 'price', 'in', 'u', 's']
    """
    return [word.replace("\u2019", "'") for word in _WORD.findall(text.lower())]


def content_words(text: str) -> list[str]:
    """Return the words of *text* that carry its meaning, in lower case."""
    return [word for word in words(text) if word not in STOPWORDS]


def normal_form(text: str) -> str:
    """Return *text* as compared with others: its words alone."""
    return " ".join(words(text))


def numbers(text: str) -> frozenset[str]:
    """Return the numbers in *text* as written, without separators.

    >>> sorted(numbers("1,299.00 dollars within 30 days"))
    ['1299', '30']
    """
    found = re.findall(r"\d[\d,.]*", text)
    return frozenset(re.sub(r"(?:\.0+)?\.?$", "", number.replace(",", "")) for number in found)


def specifics(text: str) -> frozenset[str]:
    """Return what makes *text* about one thing alone: names (capitals inside a sentence) and numbers, in lower case.

    >>> sorted(specifics("Is there a hotel in San Diego? I need 2 rooms."))
    ['2', 'diego', 'san']
    """
    names = re.findall(r"(?<![.!?] )(?<![.!?]  )(?<!^)\b[A-Z][\w'-]+", text.strip())
    return numbers(text) | {name.lower() for name in names if name.lower() not in STOPWORDS}


def is_thanks(text: str) -> bool:
    """Return whether a user's short message accepts what was said."""
    return bool(_THANKS.search(text)) and not is_against(text) and len(words(text)) <= MAX_THANKS_WORDS


def is_against(text: str) -> bool:
    """Return whether a user's message says that what was said is wrong or did not help.

    >>> is_against("No, that is wrong."), is_against("No, that's all. Thank you!")
    (True, False)
    """
    return bool(_AGAINST.search(_NOT_AGAINST.sub(" ", text)))


def is_passing(text: str) -> bool:
    """Return whether *text* speaks of moments that do not come again.

    >>> is_passing("It leaves at 7 am."), is_passing("We are open from 7 am to 9 pm.")
    (True, False)
    """
    return bool(_PASSING.search(text)) or (bool(_CLOCK.search(text)) and not _REGULAR.search(text))


def is_offensive(text: str) -> bool:
    """Return whether *text* insults, or shouts in capitals."""
    return bool(_OFFENCE.search(text)) or _shouts(text)


def _shouts(text: str) -> bool:
    # Where lower case is the rule nobody shouts: most texts are told by their first letters.
    letters = [character for character in text if character.isalpha()] if text[:40].upper() == text[:40] else []
    return len(letters) > 20 and sum(character.isupper() for character in letters) > 0.7 * len(letters)


def has_placeholder(text: str) -> bool:
    """Return whether personal data was taken out of *text*."""
    return "[" in text and bool(_PLACEHOLDER.search(text))
