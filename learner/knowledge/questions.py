"""What a question asks by itself: without the courtesies around it, and with what it leans on named.

English, like the local embedding. A question that nobody else could understand is left out, not guessed at.
"""

import re
from typing import Final

from learner.knowledge.language import content_words, has_placeholder, is_passing, is_thanks, normal_form
from learner.knowledge.subjects import THING

MAX_WHOLE_CHARS: Final = 200  # of a message that is kept as it is; of a longer one only what asks

_SENTENCE_END: Final = re.compile(r"(?<=[.!?])\s+|\n+")
_GREETING: Final = re.compile(
    r"^\W*(?:(?:hi|hello|hey|dear|good (?:morning|afternoon|evening|day)|greetings|howdy)(?: there| all| team| everyone"
    r"| support| again)?|(?:i have|i've got) a (?:quick |short )?question|(?:quick )?question|(?:please )?help(?: me)?"
    r"|i hope .*|(?:yes|no|ok|okay|sure|alright|great|perfect|good|nice|cool)(?:[ ,]+(?:please|thanks|that.*))?"
    r"|(?:thanks|thank you)\b.*|(?:my name is|i am called|this is)\b.*)\W*$",
    re.IGNORECASE,
)
_OPENER: Final = re.compile(
    r"^(?:(?:hi|hello|hey|good (?:morning|afternoon|evening))(?: there| all| team| everyone| support)?\s*[,.!:-]+\s*"
    r"|(?:yes|yeah|ok|okay|alright|sure|great|perfect|well|right|thanks|thank you)\s*[,.!-]+\s*"
    r"|(?:and|also|so|but|then)[,]?\s+)+",
    re.IGNORECASE,
)
_ASIDE: Final = re.compile(r",?\s+(?:by the way|btw)\b|^(?:by the way|btw|i(?:'m| am) not sure),\s+", re.IGNORECASE)
_ASKS: Final = re.compile(
    r"\?|^\W*(?:how|what|when|where|which|who|why|can|could|do|does|did|is|are|was|will|would|should|may|must|am"
    r"|i (?:need|want|would like|have|am|lost|forgot)|i'?d like|i'?m|i'?ve|my|our|tell me|explain|please|help)\b"
    r"|\b(?:can'?t|cannot|can not|won'?t|doesn'?t|does not|isn'?t|didn'?t|unable|forgot\w*|lost|broken|damaged|missing"
    r"|wrong|errors?|fail\w*|stuck|locked|problems?|issues?|trouble|crash\w*|declined|expired|never (?:arrived"
    r"|received)"
    r"|change|cancel|refund|return|reset|update|export|download|delete|install|upgrade)\b",
    re.IGNORECASE,
)
_ASKED_FOR: Final = re.compile(
    r"^(?:please )?(?:can|could|would) you (?:please )?(?:tell me|explain|let me know|give me)(?: to me)?\b,?"
    r"|^(?:please )?(?:tell|give) me\b,?|^do you know\b,?|^(?:can|could|may) i (?:get|have|know)\b",
    re.IGNORECASE,
)
_COMMAND: Final = re.compile(
    r"^\W*(?:(?:please )?(?:can|could|would|will) you (?!(?:please )?(?:tell|explain|help))"
    r"|(?:yes,? |ok,? )?(?:please )?(?:transfer|send|book|make|reserve|play|cancel|order|buy|add|schedule|find|show"
    r"|search|move|change|refund|pay)\b|i(?:'d like| would like| want| need)\b(?! (?:to know|help)))",
    re.IGNORECASE,
)
# Something to be found, booked, bought or played for somebody.
_WISH: Final = re.compile(
    r"\b(?:i(?:'d| would)? (?:also )?(?:like|want|need|love|prefer|wanna|plan)|i(?:'m| am) (?:also )?(?:looking"
    r"|searching"
    r"|interested|thinking|planning|traveling|travelling|going|in the mood|feeling|hungry|bored)|(?:can|could|would"
    r"|will) you"
    r"|please|help me|let's|let me|how (?:a)?bout|what about)\b.{0,30}?\b(?:find|search|look(?:ing)? (?:for|up|in)|book"
    r"|reserve"
    r"|reservation|play|purchase|buy|rent|watch|see|attend|visit|eat|listen|travel|fly|go(?:ing)? (?:to|out|on)"
    r"|heading|table"
    r"|tickets?|rooms?|flights?|cab|taxi|ride|movies?|songs?|music|restaurants?|hotels?|apartments?|transfer|schedule"
    r"|events?|options?|appointment with)\b",
    re.IGNORECASE,
)
# Of one trip, visit or bill alone, whatever it names.
_ONE_VISIT: Final = re.compile(
    r"\b(?:depart\w*|arriv\w*|leav(?:e|es|ing)|flights?|tickets?|rides?|trip|station|total|how much|cost\w*|price|fare"
    r"|rent|available|balance|account|forecast|temperature|rain\w*|wind\w*|humid\w*|sunny|cloudy|degrees|date|time"
    r"|events?|concert"
    r"|game|show|this ticket|my)\b",
    re.IGNORECASE,
)
_DESK: Final = re.compile(r"\b(?:i|i'm|i've|i'd|i'll|my|me|we|our|us|you|your|yours)\b", re.IGNORECASE)
_FURTHER: Final = re.compile(
    r"\b(?:others?|another|else|something (?:else|more|different)|recommend|suggest|show me|look(?:ing)? for"
    r"|how (?:a)?bout|what about"
    r"|find (?:me|an?|some)|some (?:more|new|good|nice|other)|(?:some|any)thing (?:in|near|around|available)"
    r"|options?|are there (?:any|some)\b.*\b(?:might|could|would))\b",
    re.IGNORECASE,
)
_SEARCH: Final = re.compile(
    r"\b(?i:find|locate|looking for|show me|search for|(?:need|want|like) (?:an?|some))\b.{0,40}"
    r"\b(?i:in|near|around) (?:the )?[A-Z]"
)
_CHAT: Final = re.compile(
    r"\b(?:how are you|how(?:'s| is) it going|who are you|what(?:'s| is) your name|are you (?:an? )?(?:human|bot"
    r"|robot|real"
    r"|person|ai|machine|there)|joke|poem|meaning of life|how old are you|do you (?:love|dream|feel|sleep|eat)"
    r"|what(?:'s| is)"
    r" up|weather|your (?:favou?rite|opinion))\b",
    re.IGNORECASE,
)
_THING: Final = re.compile(rf"\b(?:the|this|that|these|those|both)(?: [\w'-]+)?? {THING}(?:s|'s|s')?\b", re.IGNORECASE)
# What something else has: "the genre" of what?
_PART: Final = re.compile(
    r"\bthe (?:genre|album|director|rating|showtimes?|release date|artist|cuisine|fare|total|venue)\b(?! (?:of|for"
    r"|in)\b)",
    re.IGNORECASE,
)
_OWN_TRIP: Final = re.compile(
    r"\b(?:will|would|do|am|did) i (?:be )?(?:arriv|depart|leav|land|board|travel|fly|stay|get there)", re.IGNORECASE
)
_REPEATED: Final = re.compile(r"\b(?!(?:that|had)\b)(\w+) \1\b", re.IGNORECASE)
_POINTS: Final = re.compile(
    r"\b(?:it|its|they|them|their|theirs|he|she|his|her|him|one|ones|another|same)\b"
    r"|(?<!is )(?<!are )(?<!was )(?<!will )\bthere\b(?! (?:is|are|was|any|an?)\b)"
    r"|\b(?:this|that|these|those)(?=\W*$|\W*[.,?!]| (?:is|are|was|one|work|cost|mean|happen|take|cover|come|does"
    r"|include)s?\b)",
    re.IGNORECASE,
)
_EXPLETIVE: Final = re.compile(
    r"\b(?:(?:does|will|did|would) it (?:take|cost|matter)|(?:is|was|would) it (?:possible|okay|ok|allowed|safe"
    r"|necessary|required|true|too late)|it(?:'s| is) (?:possible|ok)|one (?:of|day|week|month"
    r"|time|or))"
    r" (?=(?:\w+ ){0,2}(?:to|that|if|for|until|before|when)\b)",
    re.IGNORECASE,
)
_CLAUSE: Final = re.compile(
    r"[,.;:!?]|\b(?:and|but|so|if|when|once|because|after|before|that|which|or)\b", re.IGNORECASE
)
_BROUGHT_UP: Final = re.compile(
    r"\b(?:an?|my|the|some|our|your|any|two|three) (?:[\w'-]+ ){0,2}?[\w'-]{3,}", re.IGNORECASE
)


def core_question(text: str, *, is_whole: bool = False) -> str:
    """Return what *text* asks, without greetings, thanks, personal data and what is true for one day.

    *is_whole*: its other sentences stay too when it is short: they say in which case it is asked.

    >>> core_question("Yes, that's right. Who directed Hellboy?")
    'Who directed Hellboy?'
    >>> core_question("Hi! I'm on an old plan. Will my price go up?", is_whole=True)
    "I'm on an old plan. Will my price go up?"
    """
    sentences = [_without_opener(sentence) for sentence in _SENTENCE_END.split(" ".join(text.split())) if sentence]
    telling = [s for s in sentences if not (_GREETING.match(s) or has_placeholder(s) or _is_thanks(s))]
    asking = [s for s in telling if s.endswith("?")]
    lasting = [s for s in telling if s.endswith("?") or not is_passing(s)]
    if is_whole and sum(map(len, lasting)) <= MAX_WHOLE_CHARS:
        return " ".join(lasting)
    asked = " ".join(asking or lasting)
    return asked[:1].upper() + asked[1:]


def _is_thanks(sentence: str) -> bool:
    return is_thanks(sentence) and not _ASKS.search(sentence)


def _without_opener(sentence: str) -> str:
    rest = _ASIDE.sub("", _OPENER.sub("", sentence.strip(), count=1))
    return (rest[0].upper() + rest[1:]) if rest and rest != sentence.strip() else sentence.strip()


def is_request(text: str) -> bool:
    """Return whether *text* asks for something or tells of a problem, in words of its own and not just for a chat."""
    return bool(_ASKS.search(text)) and not (_CHAT.search(text) or _OWN_TRIP.search(text) or _REPEATED.search(text))


def is_command(text: str) -> bool:
    """Return whether *text* wants something done, not to know something.

    >>> is_command("Are pets allowed?"), is_command("Can you play it, please?")
    (False, True)
    """
    return bool(_COMMAND.search(text))


def is_wish(text: str) -> bool:
    """Return whether *text* wants something found, booked, bought or played: what follows is about that one thing.

    >>> is_wish("I'd like to find a place to eat."), is_wish("I'd like a refund."), is_wish("I can't log in.")
    (True, False, False)
    """
    return bool(_WISH.search(text)) or is_search(text)


def is_search(text: str) -> bool:
    """Return whether *text* looks for a place or provider somewhere: any answer is one pick among many.

    >>> is_search("Can you find a salon in San Jose?"), is_search("Where do I find my invoice?")
    (True, False)
    """
    return bool(_SEARCH.search(text))


def is_of_one_visit(text: str) -> bool:
    """Return whether *text* asks about one trip, bill or moment: its answer holds for that alone."""
    return bool(_ONE_VISIT.search(text))


def asks_for_more(text: str) -> bool:
    """Return whether a question wants another of what was offered: its answer is one pick among many."""
    return bool(_FURTHER.search(text))


def leans_on_before(question: str) -> bool:
    """Return whether *question* points at something that it does not name itself.

    >>> leans_on_before("What year is this song from?"), leans_on_before("Can I return them?")
    (True, True)
    >>> leans_on_before("I lost my card, how do I block it?"), leans_on_before("Is it possible to pay by card?")
    (False, False)
    """
    if _THING.search(question) or _PART.search(question):
        return True
    text = _EXPLETIVE.sub(" ", question)
    for match in _POINTS.finditer(text):
        clauses = list(_CLAUSE.finditer(text, 0, match.start()))
        before = text[: clauses[-1].start()] if clauses else ""
        if not _BROUGHT_UP.search(before):
            return True
    return False


def is_for_the_desk(question: str) -> bool:
    """Return whether *question* is about the asker or the desk itself, so that no other subject is missing.

    >>> is_for_the_desk("Which cards do you accept?"), is_for_the_desk("Can you tell me the address?")
    (True, False)
    """
    return bool(_DESK.search(_ASKED_FOR.sub("", question.strip(), count=1)))


_PRONOUN: Final = re.compile(
    r"\b(?P<do>do|are|have|were) they\b|\b(?P<it>is|does|was|has|did|can|will) (?:it\b|(?:this|that)\b(?! \w+))"
    r"|\b(?P<own>its|their)\b|(?P<at> (?:in|at) there|(?<=\w) there)(?=\W*$)",
    re.IGNORECASE,
)
_SINGULAR: Final = {"do": "does", "are": "is", "have": "has", "were": "was"}
_THING_NAMED: Final = re.compile(rf"\b(?:the|this|that) (?:[\w-]+ )??{THING}(?P<own>'s)?(?!\w)", re.IGNORECASE)


def with_subject(question: str, subject: str) -> list[str]:
    """Return phrasings of a later *question* that name the *subject* it leans on, the most natural first.

    >>> with_subject("Do they serve wine?", "Golden Gate Pizza")[:2]
    ['Does Golden Gate Pizza serve wine?', 'About Golden Gate Pizza: Do they serve wine?']
    >>> with_subject("Is the salon unisex?", "Great Clips")[0]
    'Is Great Clips unisex?'
    """
    named = _named(question, subject)
    rest = [f"About {subject}: {question}", f"{question} ({subject})", f"A question about {subject}: {question}"]
    return [named, *rest] if named else rest


def _named(question: str, subject: str) -> str:
    """Return *question* with its first pointing word replaced by *subject*; nothing when there is none."""
    thing = _THING_NAMED.search(question)
    pronoun = _PRONOUN.search(question)
    if thing and not (pronoun and pronoun.start() < thing.start() and not pronoun["at"]):
        text = f"{question[: thing.start()]}{subject}{thing['own'] or ''}{question[thing.end() :]}"
    elif pronoun:
        verb = pronoun["do"] or pronoun["it"]
        if verb:
            form = _SINGULAR.get(verb.lower(), verb.lower())
            new = f"{form} {subject}"
        else:
            new = f"{subject}'s" if pronoun["own"] else f" at {subject}"
        text = f"{question[: pronoun.start()]}{new}{question[pronoun.end() :]}"
    else:
        return ""
    return text[0].upper() + text[1:]


_TOLD: Final = re.compile(
    r"^(?:(?:can|could|would) you (?:please )?(?:tell me|explain)(?: to me)?,? +(?!if|whether|about)"
    r"|i(?: would|'d) like to know,? +(?!if|whether)|i want to know,? +(?!if|whether)|do you know,? +(?!if|whether"
    r"|the|any|of)"
    r"|tell me,? +(?!if|whether|about))",
    re.IGNORECASE,
)
_SWAPS: Final = (
    (r"^how (?:do|can|could|should|would) i ", ("How can I ", "What do I have to do to ")),
    (r"^(?:can|could|may) i ", ("Am I able to ", "Is it possible to ")),
    (r"^(?:can|could) we ", ("Are we able to ", "Is it possible to ")),
    (r"^what's ", ("What is ",)),
    (r"^where (?:do|can) i ", ("Where can I ", "Where do I have to go to ")),
    (r"^i (?:need|want|would like) to (?!.*\?)", ("How can I ", "Please help me to ")),
    (r"^i'd like to (?!.*\?)", ("How can I ", "Please help me to ")),
    (r"^please ", ("Could you please ", "I would like you to ")),
)
_ASKS_YOU: Final = re.compile(r"^(?:can|could|would|will) you\b", re.IGNORECASE)
_DIRECT: Final = re.compile(
    r"^(?:how|what|when|where|which|who|why|is|are|do|does|can|could|will|should|may|am)\b", re.IGNORECASE
)


def rephrased(question: str) -> list[str]:
    """Return further phrasings of *question* that mean the same for certain: the same sentence with another opening.

    >>> rephrased("Can you tell me how do I reset my password?")[:3]
    ['How do I reset my password?', 'How can I reset my password?', 'What do I have to do to reset my password?']
    >>> rephrased("My parcel arrived damaged.")
    ['I need help with this: My parcel arrived damaged.', 'What can I do in this case: My parcel arrived damaged.']
    """
    core = _TOLD.sub("", question.strip(), count=1) or question.strip()
    core = core[0].upper() + core[1:]
    texts = [core, _asking_first(core)]
    for pattern, openings in _SWAPS:
        if re.match(pattern, core, re.IGNORECASE) and ". " not in core:
            texts += [re.sub(pattern, opening, core, count=1, flags=re.IGNORECASE) for opening in openings]
    if _ASKS_YOU.match(core):
        texts += [f"I have a question: {core}", f"I need help with this: {core}"]
    elif _DIRECT.match(core):
        inner = core[0].lower() + core[1:] if core.split()[0] != "I" else core
        texts += [f"I would like to know: {inner}", f"Can you tell me: {inner}", f"I have a question: {inner}"]
    else:
        texts += [f"I need help with this: {core}", f"What can I do in this case: {core}"]
    known = {normal_form(question)}
    distinct = []
    for text in texts:
        if normal_form(text) not in known:
            known.add(normal_form(text))
            distinct.append(text)
    return distinct


def _asking_first(question: str) -> str:
    """Return *question* with the sentence that asks before those that say in which case."""
    told, _, asking = question.rpartition(". ")
    return f"{asking} {told}." if told and asking.endswith("?") else question


def has_substance(question: str) -> bool:
    """Return whether *question* names what it asks about."""
    return len(content_words(question)) >= (1 if is_for_the_desk(question) else 2)
