"""What rules can see in a text: its content words, its specifics, thanks, questions back, and work done on request.

English, like the local embedding. Rules here only rank and screen; a person decides.
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
    r"\b(?:wrong|incorrect|not (?:right|correct|true|working|helpful|what|solved)|doesn'?t (?:work|help)|didn'?t"
    r" (?:work|help)|useless|terrible|still (?:not|broken|does ?n'?t|can'?t|waiting)|no(?:,|\.) (?:that|it|i)"
    r"|complain|ridiculous|speak to a (?:human|person|manager))\b",
    re.IGNORECASE,
)
_QUESTION: Final = re.compile(
    r"\?|^\W*(?:how|what|when|where|which|who|why|can|could|do|does|did|is|are|was|will|would|should|may|must|am"
    r"|i (?:need|want|would like|can'?t|cannot)|i'?d like|my|tell me|explain)\b",
    re.IGNORECASE,
)
_TRANSACTION: Final = re.compile(
    r"\b(?:i(?: have|'ve)?(?: (?:just|now|successfully|already))? (?:booked|made|reserved|placed|added|scheduled"
    r"|purchased|bought|sent|transferred|ordered|refunded|cancelled|canceled|updated|paid|processed|created|played|found)"
    r"|(?:has|have) (?:now )?(?:been )?(?:successfully )?(?:been )?(?:booked|made|confirmed|reserved|scheduled|added"
    r"|purchased|transferred|updated|placed|completed|processed)"
    r"|your (?:reservation|booking|appointment|tickets?|ride|cab|taxi|balance|calendar|schedule|payment|transfer|flight"
    r"|visit|music|song|movie) (?:is|are|was|were|will)"
    r"|(?:please|to) confirm|confirming|let me (?:check|review|confirm|see)"
    r"|is (?:that|this) (?:correct|right|ok(?:ay)?)"
    r"|you(?:'d| would) like (?:me )?to|(?:account|savings|checking|current) balance|balance (?:of|in|is)"
    r"|you have (?:nothing|\$|an? )|on (?:its|his|her|their) way|now playing"
    r"|\$[\d,.]+ (?:in|left)|in (?:my|your) (?:\w+ )?account|(?:is|are) (?:now )?(?:starting|playing|booked|confirmed)"
    r"|successful(?:ly)?|(?:has|have) (?:begun|started)|started (?:playing|the)|will (?:play|begin)|enjoy|coming up"
    r"|let's start"
    r"|have a (?:nice|good|great|wonderful)|anything else|you'?re welcome|my pleasure)\b",
    re.IGNORECASE,
)
# An offer of one thing among others, or a wish to know more: it answers nothing.
_OFFER: Final = re.compile(
    r"\b(?:how about|what about|have you (?:listened|heard|tried|seen)|would you|do you (?:want|like|prefer|have)"
    r"|(?:i(?:'d| would| can| especially)?|we) (?:recommend|suggest|like)|you (?:may|might) (?:enjoy|like)"
    r"|that match|match(?:ed|es|ing)? (?:your|all)|suits? (?:you|your|to)|short ?-?listed|let me know"
    r"|(?:please|kindly) (?:tell|specify|provide|give|share|let)|tell me|what (?:day|city|date|time|kind|type)\b"
    r"|which (?:city|date|day|area)\b|as per your|is an? (?:\w+ )?(?:nice|good|great|best)"
    r"|(?:best|great|nice|good) one|(?:able to (?:locate|find)|located|got|there (?:is|are|'s)) (?:about )?\d+)\b",
    re.IGNORECASE,
)
# Of one trip, visit or bill alone.
_INSTANCE: Final = re.compile(
    r"\b(?:depart\w*|arriv\w*|leav(?:e|es|ing)|flights?|tickets?|rides?|trip|station|total|how much|cost\w*|price|fare"
    r"|rent"
    r"|available|balance|account|weather|forecast|temperature|rain\w*|wind\w*|humid\w*|sunny|cloudy|degrees)\b",
    re.IGNORECASE,
)
_NAME_WORD: Final = r"(?:[A-Z][\w'’&.-]*[\w'’]|[A-Z&]|\d+)"  # noqa: RUF001
_NAME: Final = re.compile(
    rf"(?<![\w])[A-Z][\w'’-]*(?: {_NAME_WORD}| (?:of|the|and|in|at|by|de|la|del|on|for|&|-) (?=[A-Z]){_NAME_WORD})*"  # noqa: RUF001
)
_MOMENT: Final = re.compile(
    r"\b(?:(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day|January|February|March|April|May|June|July|August|September"
    r"|October|November|December)\b.*"
)
_COMMAND: Final = re.compile(r"\b(?:can|could|would|will) you (?!(?:please )?(?:tell|explain))", re.IGNORECASE)
_PLACED: Final = re.compile(r"\b(?:in|to|from|near|around|by|on)$", re.IGNORECASE)
_CALLED: Final = re.compile(r"\b(?:called|named|titled)$", re.IGNORECASE)
_LEADING: Final = re.compile(
    r"(?:At|In|On|To|One|Two|For|Your|The event|I|Would|There|Sorry|Sure|Yes|No|Ok)\b", re.IGNORECASE
)
_FURTHER: Final = re.compile(
    r"\b(?:others?|another|else|more|different|recommend|suggest|find|some|something|show me|need|look(?:ing)? for)\b",
    re.IGNORECASE,
)
_SEARCH: Final = re.compile(
    r"\b(?i:find|locate|need|want|looking for|show|search for)\b.{0,40}\b(?i:in|near|around) (?:the )?[A-Z]"
)
_POINTING: Final = re.compile(
    r"\b(?:it|its|they|them|their|there|that|this|those|these|he|she|him|her|his|hers|one|ones|another|other|else|same"
    r"|instead|also|as well|again|actually)\b",
    re.IGNORECASE,
)
# What is true only today, or only for who asked.
_PASSING: Final = re.compile(
    r"\b(?:today|tonight|tomorrow|yesterday|that day|chance of rain|forecast|average temperature|degrees"
    r"|next (?:week|month|monday|tuesday|wednesday|thursday|friday|saturday|sunday)"
    r"|this (?:week|weekend|month|morning|afternoon|evening)|right now|at the moment|currently"
    r"|\d{1,2}(?:st|nd|rd|th)?(?: of)? (?:january|february|march|april|may|june|july|august|september|october|november"
    r"|december)|(?:january|february|march|april|may|june|july|august|september|october|november|december)"
    r" \d{1,2}(?:st|nd|rd|th)?|the \d{1,2}(?:st|nd|rd|th)|\d{1,2}(?::\d\d)? ?[ap]\.?m\b"
    r"|(?:found|have|are|is|see) (?:only )?(?:\d+|one|two|three|four|five|six|seven|eight|nine|ten)\b)",
    re.IGNORECASE,
)
_OFFENCE: Final = re.compile(
    r"\b(?:idiots?|stupid|moron|dumb|shut up|fuck\w*|shit\w*|bullshit|asshole|bastard|bitch|crap|damn)\b", re.IGNORECASE
)
_PLACEHOLDER: Final = re.compile(r"\[(?:EMAIL|SECRET|CARD|IBAN|IP|ID|PHONE|ADDRESS|NAME)\]")


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
    return len(words(text)) <= 25 and bool(_THANKS.search(text)) and not is_against(text)


def is_against(text: str) -> bool:
    """Return whether a user's message says that what was said is wrong or did not help."""
    return bool(_AGAINST.search(text))


def is_request(text: str) -> bool:
    """Return whether *text* asks for something."""
    return bool(_QUESTION.search(text.strip()))


def asks_back(text: str) -> bool:
    """Return whether an answer asks or offers something instead of answering."""
    return "?" in text or bool(_OFFER.search(text))


def is_transaction(text: str) -> bool:
    """Return whether an answer reports work done for this user, confirms it or says goodbye."""
    return bool(_TRANSACTION.search(text))


def is_passing(text: str) -> bool:
    """Return whether *text* speaks of moments or counts that are no longer true tomorrow."""
    return bool(_PASSING.search(text))


def points_back(text: str) -> bool:
    """Return whether *text* leans on what was said before it."""
    return bool(_POINTING.search(text))


def is_instance(text: str) -> bool:
    """Return whether *text* is about one trip, bill or moment, whatever it names."""
    return bool(_INSTANCE.search(text))


def subject(text: str) -> str:
    """Return what *text* names that a later question may lean on, with the place it is in; nothing when unclear.

    A name of several words, or of one that is said to be a name. What follows "in" or "to" is a place, not a subject.

    >>> subject("There is a restaurant called Golden Gate Pizza that is located in San Francisco.")
    'Golden Gate Pizza, San Francisco'
    >>> subject("I found 7 restaurants in San Francisco.")
    ''
    """
    main, place = "", ""
    for match in _NAME.finditer(text):
        name = re.sub(r"(?: (?:of|the|and|in|at|by|on|for|-))+$", "", _MOMENT.sub("", match.group()).strip(" .'-&"))
        before = text[: match.start()].rstrip()
        is_placed = bool(_PLACED.search(before))
        is_called = " " in name or bool(_CALLED.search(before))
        if before.endswith("[") or _LEADING.match(name) or len(name) < 2:
            continue
        if is_placed:
            place = place or name
        elif is_called:
            main = main or name
    return f"{main}, {place}" if main and place else main


def asks_for_more(text: str) -> bool:
    """Return whether a question wants another of what was offered: its answer is one pick among many."""
    return bool(_FURTHER.search(text))


def is_question(text: str) -> bool:
    """Return whether *text* asks to know something, not for something to be done.

    >>> is_question("Are pets allowed?"), is_question("Can you play it, please?")
    (True, False)
    """
    core = core_question(text)
    return core.endswith("?") and not _COMMAND.search(core)


def is_search(text: str) -> bool:
    """Return whether *text* looks for a place or provider somewhere: any answer is one pick among many.

    >>> is_search("Can you find a salon in San Jose?"), is_search("Where do I find my invoice?")
    (True, False)
    """
    return bool(_SEARCH.search(text))


def core_answer(text: str) -> str:
    """Return *text* without the sentences that only acknowledge or report work done; all of it when none is left.

    >>> core_answer("Got it. The visit is confirmed. Yes, pets are welcome there.")
    'Yes, pets are welcome there.'
    """
    if "\n" in text.strip():  # lists and code stay as they are
        return text.strip()
    sentences = re.split(r"(?<=[.!])\s+", text.strip())
    kept = [sentence for sentence in sentences if content_words(sentence) and not is_transaction(sentence)]
    return " ".join(kept) or text.strip()


def core_question(text: str) -> str:
    """Return the sentences of *text* that ask, without the yes and thanks before them; all of it when none does.

    >>> core_question("Yes, that's right. Who directed Hellboy?")
    'Who directed Hellboy?'
    """
    sentences = re.split(r"(?<=[.!?])\s+", text.strip())
    asking = [sentence for sentence in sentences if sentence.endswith("?")]
    return " ".join(asking) or text.strip()


def is_offensive(text: str) -> bool:
    """Return whether *text* insults, or shouts in capitals."""
    letters = [character for character in text if character.isalpha()]
    shouts = len(letters) > 20 and sum(character.isupper() for character in letters) > 0.7 * len(letters)
    return shouts or bool(_OFFENCE.search(text))


def has_placeholder(text: str) -> bool:
    """Return whether personal data was taken out of *text*."""
    return bool(_PLACEHOLDER.search(text))
