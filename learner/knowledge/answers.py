"""What an answer says to everybody: its sentences without courtesies, offers and what concerns one person alone.

English, like the local embedding. Each rule is about one sentence; a person decides about what is left.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from learner.knowledge.language import content_words, has_placeholder, is_passing

Kind = Literal["says", "courtesy", "personal", "asks", "reports", "instance", "passing", "broken"]

_GAP: Final = re.compile(r"\n{3,}")  # where lines were left out
_FENCE: Final = re.compile(r"(```.*?(?:```|\Z))", re.DOTALL)
_JOINS: Final = re.compile(
    r"^(?:also|additionally|besides|moreover|in addition),\s+", re.IGNORECASE
)  # to what is left out
_BLOCK_LINE: Final = re.compile(r"\s*(?:[-*+•]\s|\d{1,3}[.)]\s|\||#{1,6}\s|>|\t| {4})")
_MARKER: Final = re.compile(r"^\s*(?:[-*+•>#|]+|\d{1,3}[.)])?\s*(?:\|?\s*\d+\s*\|\s*)?")
_SENTENCE_END: Final = re.compile(r"(?<=[.!?])(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\bapprox\.)(?<!\bNo\.)(?<!\bSt\.)\s+(?=\S)")
_COURTESY: Final = re.compile(
    r"^\W*(?:(?:hi|hello|hey|dear|welcome)\b(?:[ ,]+(?:there|again|all|customer|\[NAME(?: \d+)?\]|and welcome))*"
    r"|good (?:morning|afternoon|evening|day)"
    r"|(?:(?:that(?:'s| is) (?:an? )?)?(?:very |really |pretty )?(?:good|great|excellent|fair|general|nice) (?:\w+ )?"
    r"(?:question|point|choice|news|idea))"
    r"|(?:that(?:'s| is) an? .{0,30}question)|you(?:'re| are) (?:\w+ )?right\b.{0,20}"
    r"|(?:is there |do you need |can i (?:help|assist|do) |may i (?:help|assist) |would you like "
    r"|need )?(?:you )?(?:with )?"
    r"(?:anything|something) (?:else|more)\b.*|(?:does|did|do) (?:that|this|it) (?:help|answer|make|work)\b.*"
    r"|(?:how|what else) (?:can|may) i (?:help|assist|do)\b.*|(?:any|do you have any) (?:other|more"
    r"|further) questions.*"
    r"|(?:i(?:'m| am)|we(?:'re| are)) (?:so |very |really |truly )?sorry(?: (?:to hear|about|for)\b.*)?"
    r"|(?:sorry|apologies|my apologies)(?: (?:to hear|about|for)\b.*)?|you(?:'re| are) (?:very |most )?welcome"
    r"|(?:my|our) (?:pleasure|apologies)|(?:thanks|thank you)\b.*|(?:i(?:'m| am)|we(?:'re| are))? ?(?:happy"
    r"|glad) to help"
    r"|(?:i(?:'m| am)|we(?:'re| are)|i(?:'d| would) be) (?:happy|glad)\b.*"
    r"|have an? .{0,30}|have (?:fun|safe)\b.{0,30}|enjoy(?: (?:the|your|it)\b.{0,30})?"
    r"|(?:(?:i |we )?hope (?:you|your|this|that)|take care|all the best|best wishes)\b.*"
    r"|(?:please )?(?:let (?:me|us) know|feel free|don'?t hesitate|do not hesitate)\b.*"
    r"|if you (?:have|need) (?:any )?(?:more|other|further|additional|questions|anything|help)\b.*"
    r"|bon app\w+|(?:kind|best|warm)?(?: )?regards\b.*|cheers|bye|goodbye|see you\b.*"
    r"|(?:i(?:'d| would| can|'ll| will)|i'm going to|let me) (?:be able to )?(?:love to |gladly |happily )?(?:help"
    r"|assist|check"
    r"|look|see|find out|get back|connect|transfer you|forward|pass|explain|review|walk|have)\b[^:]*"
    r"|(?:one|a|just a) (?:moment|second|minute)\b.*|(?:please )?(?:hold on|wait|bear with (?:me|us))\b.*"
    r"|(?:yes|no|sure|ok|okay|certainly|absolutely|of course|alright|all right|right|got it|exactly|correct|done|great"
    r"|perfect|i see|i understand|understood|no problem|no worries|definitely|very well|noted|fantastic|wonderful)"
    r"(?:[ ,]+(?:thing|it is|it does|they do|you can|we do|i can|that's (?:right|correct|it)|sir|madam|please))*"
    r")\W*$",
    re.IGNORECASE,
)
# Words before the first that says something; "Yes" and "No" stay: they answer.
_OPENER: Final = re.compile(
    r"^(?:(?:hi|hello|hey|dear|good (?:morning|afternoon|evening))(?: there| again)?(?:[ ,]*\[NAME(?: \d+)?\])?[,.! ]+"
    r"|(?:sure(?: thing)?|of course|certainly|absolutely|alright|okay|ok|got it|great question|good question"
    r"|thanks for asking|no problem)\s*[,.!:-]+\s*"
    r"|(?:i'm |i am |we're |we are )?(?:so |very )?sorry(?: (?:but|to say that|to say))?[,.]?\s+(?:but )?(?=[a-z]))+",
    re.IGNORECASE,
)
_ASKS_BACK: Final = re.compile(
    r"\?\W*$|^\W*(?:(?:sure|ok|okay|great),? )?(?:in |at |for |to )?(?:what|which)\b(?! (?:you|we|happens|to"
    r"|is more)\b)"
    r"|^\W*why (?:not|don'?t)\b|^\W*(?:i|we)(?:'ve| have)? (?:found|searched|discovered|have \d)|\bwhat(?:'s"
    r"| is) your\b",
    re.IGNORECASE,
)
_ASKS: Final = re.compile(
    r"^\W*(?:(?:so |and |ok(?:ay)?,? |please |now )?(?:where|when|what|which|who|how many|at what)\b.{0,40}"
    r"\b(?:will|would|do|should|are) you\b)"
    r"|\b(?:how about|what about|would you (?:like|prefer|want)|do you (?:want|like|prefer))\b"
    r"|\byou(?:'d| would) like (?:me )?to\b|^\W*(?:just )?to confirm\b|\bplease confirm(?=\W*$|:| (?:your|this|that"
    r"|these|if|whether|you|the (?:details|following|reservation|booking))\b)|^\W*confirm(?:ing)?\b"
    r"|\b(?:please|kindly|can you|could you) (?:tell|give|send|let) (?:me|us)\b"
    r"|\b(?:please|kindly) (?:specify|provide|verify|give) (?:your|the|a|an|which|what|me|us)\b"
    r"|\byou (?:may|might) (?:enjoy|like)\b|\bi(?:'d| would| can| especially)? (?:recommend|suggest)\b"
    r"|\b(?:that match|match(?:es|ing)? your|suits? (?:you|your|to)|as per your|short ?-?listed)\b"
    r"|\b(?:restaurant|place|hotel|museum|movie|film|song|salon|dentist|doctor|apartment|event|attraction)s?"
    r" (?:called|named|titled)\b"
    r"|\bis an? (?:\w+ )?(?:nice|good|great|best) (?:one|place|option|choice|restaurant|hotel|movie|song)\b"
    r"|\b(?:another|one|a) (?:\w+ )?(?:nice|good|great) (?:one|place|option|restaurant|hotel|movie|song|salon)\b"
    r"|\b(?:i|we)(?:'ve| have)? (?:found|located|see|got|have) (?:about |only )?(?:\d+|an?|one|two|three|four|five|six"
    r"|seven|eight|nine|ten) (?!(?:days?|weeks?|months?|hours?|minutes?|years?)\b)(?=.*\b(?:for you|in|near|at|called"
    r"|hotels?|matches"
    r"|restaurants?|options?|results?|places?)\b)"
    r"|\bthere(?:'s| is| are) (?:about |only |just )?(?:\d+|two|three|four|five|six|seven|eight|nine|ten)"
    r" (?:\w+ ){1,4}(?:that|which|in|near|available|matching)\b",
    re.IGNORECASE,
)
# Work done on request, or under way.
_REPORTS: Final = re.compile(
    r"\bi(?:'m| am)(?: now)? (?:connecting|transferring|forwarding|checking|looking|processing|escalating|sending"
    r"|booking)\b|"
    r"\b(?:i(?: have|'ve)?(?: (?:just|now|successfully|already|also))? (?:booked|made|reserved|placed|added|scheduled"
    r"|purchased|bought|sent|transferred|ordered|refunded|cancell?ed|updated|paid|processed|created|played|moved"
    r"|changed"
    r"|reset|applied|issued|forwarded|escalated|removed|deleted|fixed|checked|looked)\b"
    r"|(?:has|have) (?:now |just |already |successfully )*(?:been )(?:successfully )?(?:booked|made|confirmed|reserved"
    r"|scheduled|added|purchased|transferred|updated|placed|completed|processed|refunded|credited|charged|cancell?ed"
    r"|sent|changed|shipped|dispatched)"
    r"|(?:is|are) (?:now )?(?:playing|booked|confirmed|on (?:its|his|her|their|the) way|all set)"
    r"|\b(?:was|were|is|am|are|could|can)(?:n'?t| not|not) (?:able to |be )?(?:complete|reserve|book|process|find"
    r"|purchase"
    r"|transfer|locate|schedule)[ed]{0,2}\b|\bunable to (?:complete|reserve|book|find|locate)\b|now playing"
    r"|(?:un)?successful(?:ly)?|(?:has|have) (?:begun|started)|started (?:playing|the)|coming up|let's start"
    r"|^\W*(?:starting|playing|transferring|booking|sending|cancell?ing|processing|paying|ordering) )",
    re.IGNORECASE,
)
# "If your order has been shipped, ..." is a rule; "your order has been shipped" is one order.
_CONDITION: Final = re.compile(r"\b(?:if|when|whenever|once|unless|until|as soon as|whether|in case)\b", re.IGNORECASE)
_GENERAL: Final = re.compile(
    r"\b(?:if|when|whenever|once|unless|until|as soon as|in case|within|usually|normally|typically|generally|always"
    r"|each"
    r"|every|any|per|after|before|up to|can|may|must|should|only|never|automatically|by default|monthly|yearly|annually"
    r"|weekly|daily|listed|shown|displayed|stored|found under|available (?:in|under|at|on)|under|encrypted"
    r"|business days|working days|\d+ to \d+)\b",
    re.IGNORECASE,
)
_POSSESSION: Final = (
    r"your (?:\w+ ){0,2}?(?:orders?|parcels?|packages?|shipments?|delivery|reservations?|bookings?|appointments?"
    r"|tickets?"
    r"|rides?|cab|taxi|flights?|trip|visit|payments?|transfers?|refunds?|invoices?|subscriptions?|plan|account|balance"
    r"|requests?|cases?|claims?|schedule|calendar|cards?|bills?|statement|contract|membership|renewal|upgrade"
    r"|replacement"
    r"|music|song|movie|driver|table|room|bus|train|savings|checking)"
)
_OWN_STATE: Final = re.compile(
    rf"\b{_POSSESSION}(?: number)? (?:is|are|will|expires|arrives|ends|shows)\b", re.IGNORECASE
)
_OWN_PAST: Final = re.compile(
    rf"\b{_POSSESSION} (?:was|were|has|have|had|expired|arrived|ended|failed|shipped|left)\b"
    r"|^\W*you (?:ordered|bought|paid|booked|sent|transferred|received|were|had|signed)\b",
    re.IGNORECASE,
)
# Whatever rules the sentence also states: these are one person's.
_ACCOUNT: Final = re.compile(
    r"[$€£]\s?[\d,.]+ (?:is |are )?(?:left|remaining|in (?:the|my|your))\b"
    r"|\b(?:(?:balance|account|savings|checking)\b.{0,40}[$€£]\s?\d"
    r"|(?:your|the) (?:current |available |remaining |account )*balance (?:is|from|of|in)"
    r"|(?:in|from|to) my (?:\w+ )?(?:account|savings|checking|card|calendar)"
    r"|you(?:'re| are) (?:scheduled|booked|confirmed|all set|free (?:at|on|until|from|all)|busy)"
    r"|you(?:'ve| have) (?:nothing|no (?:events?|appointments?|meetings?)|an? (?:\w+ )?(?:appointment|meeting|event"
    r"|reservation|booking|flight|balance|order|ticket|credit|bill)|(?:only |about )?[$€£]|\d+ (?:points|credits|orders"
    r"|tickets|events))"
    r"|(?:looking at|i(?: can)? see (?:that|in|on)|i(?:'ve| have)? (?:checked|looked)|according to (?:our"
    r"|my) (?:records|system))"
    r"|(?:order|booking|ticket|case|reservation|confirmation|tracking|invoice|claim|reference)"
    r"(?: (?:number|no\.?|id|code))?(?: is)?:? #?[A-Z]{0,4}-?\d{4,})",
    re.IGNORECASE,
)
_REFERENCE: Final = re.compile(r"(?<!\w)#\d{3,}\b")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer's sentences for everybody, verbatim, and of what kinds the others were."""

    text: str
    left_out: frozenset[Kind]


def read_answer(text: str) -> Answer:
    """Return what *text* says to everybody; no text when it says nothing.

    >>> read_answer("Got it. I've booked the visit. Yes, pets are welcome there. Anything else?").text
    'Yes, pets are welcome there.'
    >>> read_answer("Your order was shipped yesterday.")
    Answer(text='', left_out=frozenset({'instance'}))
    """
    left_out: set[Kind] = set()
    kept = []
    for number, part in enumerate(_FENCE.split(text.strip())):
        if number % 2:  # code stays as it is
            kept.append(part)
            continue
        lines = [_read_line(line, left_out) for line in part.split("\n")]
        kept.append(_GAP.sub("\n\n", "\n".join(line for line in lines if line is not None)))
    joined = _JOINS.sub("", "".join(kept).strip(), count=1)
    joined = joined[:1].upper() + joined[1:] if joined != "".join(kept).strip() else joined
    return Answer(joined if content_words(joined) else "", frozenset(left_out))


def _read_line(line: str, left_out: set[Kind]) -> str | None:
    """Return what is left of a line; None when it held something and nothing is left."""
    if not line.strip():
        return line
    if _BLOCK_LINE.match(line):
        # An item stays where it is: without it the list would say something else.
        left_out.update(kind for kind in map(_item_kind, _SENTENCE_END.split(_MARKER.sub("", line))) if kind != "says")
        return line
    kept = []
    for piece in _SENTENCE_END.split(line):
        kind = sentence_kind(piece)
        if kind == "says":
            kept.append(_without_opener(piece))
        else:
            left_out.add(kind)
    return " ".join(kept) if kept else None


def _item_kind(sentence: str) -> Kind:
    """Return of what kind a sentence in a list is: there "Confirm the change" tells what to do."""
    if has_placeholder(sentence):
        return "broken"
    if _COURTESY.match(sentence) and content_words(sentence):
        return "broken"
    if _ASKS_BACK.search(sentence) or _reports_work(sentence) or _is_instance(sentence):
        return "broken"
    return "says"


def sentence_kind(sentence: str) -> Kind:
    """Return of what kind a sentence is; "says" when it tells something to everybody.

    >>> sentence_kind("Your refund is on your card within 5 days."), sentence_kind("Your refund is on your card.")
    ('says', 'instance')
    """
    said = _without_opener(sentence)
    if has_placeholder(said):
        return "personal"
    if _COURTESY.match(sentence) or _COURTESY.match(said) or not (content_words(said) or said.rstrip().endswith(":")):
        return "courtesy"
    return next((kind for kind, is_kind in _KINDS if is_kind(sentence)), "says")


def _is_instance(sentence: str) -> bool:
    """Return whether a sentence is about one person's order, booking or account, and states no rule."""
    if _ACCOUNT.search(sentence) or _REFERENCE.search(sentence):
        return True
    if _OWN_PAST.search(sentence) and not _CONDITION.search(sentence):
        return True
    return bool(_OWN_STATE.search(sentence)) and not _GENERAL.search(sentence)


def _reports_work(sentence: str) -> bool:
    return bool(_REPORTS.search(sentence)) and not _CONDITION.search(sentence)


_KINDS: Final[tuple[tuple[Kind, Callable[[str], bool]], ...]] = (
    ("asks", lambda sentence: bool(_ASKS_BACK.search(sentence) or _ASKS.search(sentence))),
    ("reports", _reports_work),
    ("instance", _is_instance),
    ("passing", is_passing),
)


def _without_opener(sentence: str) -> str:
    rest = _OPENER.sub("", sentence, count=1)
    return sentence if not rest else rest[0].upper() + rest[1:] if rest != sentence else sentence
