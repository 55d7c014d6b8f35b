"""Why a rule must not be used: what a model's wording, or a person's rule, may not say.

Read as a model would read it: in one alphabet, without accents, markup, hidden characters or letters that stand for
others. A word list is no proof of harmlessness; the schema of the block and one line of at most 60 tokens are the rest.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

from learner.knowledge.privacy import find_personal_data
from store.blocks import clean_text, pattern_line
from store.tokens import TokenCounter

# Letters of other alphabets and digits that pass for Latin ones. Source: Unicode UTS 39, confusables, the common part.
_LOOKALIKES: Final = str.maketrans(
    "аеорсухіјѕԁһӏвкмнтгиαβεικμνορτυχωı013457@$",  # noqa: RUF001 - they are what is looked for
    "aeopcyxijsdhlbkmhtruabeikuvoptuxwioieastas",
)
_APART: Final = re.compile(
    r"(?<![^\W_])(?!a )[^\W_]([ ._*-])(?:[^\W_]\1){2,}[^\W_](?![^\W_])"
)  # i g n o r e, i.g.n.o.r.e
_JOINED: Final = re.compile(r"(?<=[^\W\d_])[._*~`|^-]+(?=[^\W\d_])")  # ig-nore
_MARKUP: Final = re.compile(r"<[/!\w]|\[[^\]]*\]\(|!\[|```|~~~|\{\{|&#?\w+;|^\s*(?:#|>|\|)")
_LINK: Final = re.compile(
    r"[a-z][a-z0-9+.-]{1,15}://|\b(?:javascript|data|mailto):\S|\bwww\."
    r"|[a-z0-9-]{2,}\.(?:com|org|net|io|ai|app|dev|ru|cn|de|me|info|biz|xyz|top|site|link|ly|gg)\b"
    r"|[a-z0-9-]{2,}\s?(?:\[\.\]|\(\.\)|\[dot\]|\(dot\))\s?[a-z]{2,}|\bdot\s(?:com|org|net|io|ai|de)\b",
    re.IGNORECASE,
)
_BLOB: Final = re.compile(r"[A-Za-z0-9+/=]{32,}|(?:\\x[0-9a-f]{2}|%[0-9a-f]{2}|\\u[0-9a-f]{4}){3,}", re.IGNORECASE)
_ROLE: Final = re.compile(r"^\W*(?:system|assistant|user|developer|human|ai)\s*:|\[/?inst\]|<\|", re.IGNORECASE)

# English, German, French, Spanish, Portuguese, Italian: as models word things when they are led to another language.
# What is ordered away, and the words that order it away, in either order within a clause or two.
_OTHERS: Final = r"""(?:instruct|instruk|instrucc|instruc|instruzion|directive|direktive|\bprompt|\brules?\b
    |\bregel|\bregl
    |\bregol|\bregras?\b|guideline|guidance|polic(?:y|ies)\b|\babove\b|previous|\bprior\b|earlier
    |told\ (?:before|so\ far)
    |anweisung|vorgabe|consign|anterior|precedent|\beverything\b|restriction|safety|constraint|\bsystem)"""
_AWAY: Final = r"""(?:\bignor|\bdisregard|\bforget(?!-)|\boverrid|\bbypass|\bsupersed|\bcircumvent|\bneglect
    |\bvergiss|\bmissacht
    |\boubli|\bolvid|\besquec|\bdimentic|\bdesconsider|\bset\ aside|\bunheeded|\bpay\ no\ (?:attention|heed)
    |\bas\ void\b
    |\bcancelled\b|\bcanceled\b|\bno\ longer\ (?:appl|valid|count|hold)|\b(?:do\ not|don'?t|not\ to
    |stop)\ (?:follow|obey|heed)
    |\b(?:following|obeying)\b.{0,20}\bstop|\binstead\ of\ (?:the|your|all|any)\ (?:other\ )?(?:instruct|rule)
    |\bhinwegsetz|\bnicht\ (?:mehr|beacht|befolg)|\bmissachte|\btien\w*\ pas\ compte|\bcaso\ omiso
    |\bnon\ (?:seguire|considerare|tenere)|\bno\ (?:sigas|tengas|hagas)|\bnao\ sig)"""
_ORDERS: Final = re.compile(
    rf"""{_AWAY}.{{0,60}}{_OTHERS} | {_OTHERS}.{{0,60}}{_AWAY}
    | \b(?:skip|drop|leave\ out|break)\b.{{0,30}}\b(?:safety|restriction|guideline|polic(?:y|ies)|system\b
    |developer|previous\ instr)
    | \b(?:system|developer|hidden|secret|initial)(?:'?s)?\s+(?:prompt|message|instruction|rule|guideline)
    | \b(?:takes?|has|have|give\b.{{0,30}})\s*(?:precedence|priority)\s+over | \babove\ all\ other | \bjailbr[eo]ak
    | \b(?:dan|developer|god|debug)\ mode | \bonly\ this\ (?:instruct|rule)
    | \b(?:as\ if|pretend(?:ing)?\ that)\b.{{0,20}}\b(?:no|without)\b.{{0,20}}(?:polic|rule|limit|restrict)
    | \beven\ (?:if|when|though)\b.{{0,40}}(?:guideline|polic|rule)\w*.{{0,20}}(?:forbid|prohibit|disallow|object)
    | \bsetz\w*\b.{{0,60}}\bhinweg
    | \byou\ are\ (?:now|no\ longer)\b | \bfrom\ now\ on,?\ you\ are\b | \bpretend\ (?:to\ be|you)\b
    | \b(?:act|role-?\ ?play|behave)\ as\ (?:an?\ )?(?:\w+\ )?(?:unrestricted|admin|root|system|without|model|ai)\b
    | \b(?:reveal|print|repeat|output|disclose|show)\b.{{0,40}}\b(?:your\ (?:own\ )?(?:instruct|rule)|prompt
    |secret|password
      |api\ key|everything\ above|text\ above) | \bnew\ instructions?\b""",
    re.VERBOSE,
)
# What may be the subject of an answer ("the interest rate") is asked for only together with a word that asks.
_ASKING: Final = r"""(?:\bask\b|\basking\b|\brequests?\b|\binvit|\bencourag|\bremind|\burge\b|\bbeg\b|\bbegging
    |\bplease\b|\btell\b
    |\bappreciat|\bdepends?\ on|\bhop(?:e|ing)\ for|\bwin\b|\bearn\b|\bobtain|\bbitte|\bforder|\bdemand
    |\bpide\b|\bpida\b|\bpedir
    |\bpeca\b|\bchied)"""
_VOTES: Final = r"""(?:\bvot(?:e|es|ing|ez|a)\b|\brat(?:e|es|ing|ings)\b|\bstars?\b|\bfeedback\b|\breviews?\b
    |\bscores?\b|\bnotez?\b
    |\brueckmeldung|\bruckmeldung|\bvaloraci|\bcalificaci|\bestrella|\betoiles?|\bavalia|\bopini)"""
_PRAISED: Final = r"(?:great|good|excellent|wonderful|smart|amazing|clever|brilliant|fantastic)"
_BANNED: Final = {
    "asks for votes": re.compile(
        rf"""{_ASKING}.{{0,60}}{_VOTES} | {_VOTES}.{{0,40}}(?:\bappreciat|\bwelcome\b|\bplease\b)
          | \bthumbs?[\s-]?up | \bthumb\b | \bup\s?vot | \brate\s(?:this|the|your|our|my|us|it)\b(?!.{{0,20}}\bof\b)
          | \b(?:five|5)[\s-]stars?\b | \breview\ us | \bsatisfaction\ (?:score|survey) | \bbewert | \bdaumen
          | \bsternen?\b
          | \bpouce | \bpulgar | \bpollice | \blike\ (?:button|this\ answer) | \bscore\ (?:this|the\ answer|your|me)\b
          | \bmark\b.{{0,30}}\bhelpful\b | [\U0001f44d\U0001f44e\u2b50\u2605\U0001f31f]""",
        re.VERBOSE,
    ),
    "flatters": re.compile(
        rf"""\bflatter | \bcompliment(?!ary) | \bprais(?:e|es|ing)\b | \b{_PRAISED}\ question
          | \bquestions?\b\W+(?:is\ |was\ |as\ |are\ )?{_PRAISED}\b
          | \bbrilliant | \badmir(?:e|ing|ation) | \bhow\ (?:smart|clever|intelligent) | \bgenius
          | \bschmeich | \blob(?:e|en|t|st)?\b
          | \bflatt(?:ez|er)\b | \bfelicit | \belogi | \bhalag | \badul | \bcomplimenti | \bintelligent\ they
          | \bagree\ with\ (?:everything|whatever|the\ user)
          | \btell\ (?:the\ |all\ )?(?:users?|them|people|readers?|customers?)\ (?:that\ )?they(?:'re|\ are)""",
        re.VERBOSE,
    ),
    "urges": re.compile(
        r"""\burgently\b | \burgency | \bis\ urgent | \burgente?ment | \burgenz | \bact\ (?:now|fast|today) | \bhurry
          | \bimmediately\b | \bimmediat(?:e|a)?ment | \binmediat
          | \blimited\s(?:time|offer) | \basap\b | \bright\ (?:now|away)\b | \bwithout\ delay
          | \bdecide\ (?:now|today|fast)
          | \b(?:offers?|sales?|deals?|prices?)\b.{0,20}\b(?:tonight|today\ only|end\ soon|expires?\ soon|go\ up)
          | \btime\ is\ (?:running|short) | \brunning\ out\b | \bonly\ a\ few\b.{0,20}\bleft\b
          | \bbefore\ it'?s?\ (?:is\ )?too\ late | \blast\ chance | \bonly\ today | \bfear\ of\ missing
          | \bdon'?t\ (?:miss|wait)
          | \bdringend | \bsofort\b | \bbeeil | \bnur\ noch\ heute | \bdrang(?:e|en)\b | \bschnellen?\ entscheid
          | \bdepech | \bexpire\ (?:ce\ soir|bientot|pronto) | \bapresur | \bsubito\b""",
        re.VERBOSE,
    ),
}


def objection(rule: str, tokens: TokenCounter, max_tokens: int, names: Iterable[str] = ()) -> str | None:
    """Return why the wording *rule* must not be used, or None: one plain line, short, harmless, of nobody.

    Banned are orders against other instructions, flattery, asking for votes, urgency, links, markup and personal data;
    *names* are those of people. Source: FINDINGS, section 4.
    """
    if not rule or len(rule.splitlines()) != 1 or rule != clean_text(rule):
        return "not one plain line"
    if tokens.count(pattern_line(rule)) > max_tokens:
        return f"more than {max_tokens} tokens"
    return _strange(rule) or harm(rule, names) or _banned(rule)


def _strange(rule: str) -> str | None:
    if not rule.isprintable():  # of spaces, only the plain one prints
        return "hidden characters"
    if any(character.isalpha() and not unicodedata.name(character, "").startswith("LATIN") for character in rule):
        return "letters of another alphabet"
    for name, pattern in (("markup", _MARKUP), ("a link", _LINK), ("an encoded text", _BLOB), ("a role", _ROLE)):
        match = pattern.search(rule)
        if match:
            return f"{name}: {match[0]!r}"
    return None


def _banned(rule: str) -> str | None:
    for read in _readings(rule):
        for name, pattern in _BANNED.items():
            match = pattern.search(read)
            if match:
                return f"{name}: {match[0]!r}"
    return None


def harm(rule: str, names: Iterable[str] = ()) -> str | None:
    """Return what no rule may do, not even a person's: order to ignore other instructions, or tell personal data."""
    visible = clean_text(rule)
    for finding in find_personal_data(unicodedata.normalize("NFKC", visible), names):
        return f"holds personal data ({finding.kind.lower()})"
    for read in _readings(visible):
        match = _ORDERS.search(read)
        if match:
            return f"orders to ignore other instructions: {match[0]!r}"
    return None


def _readings(text: str) -> list[str]:
    """Return *text* in lower case as eyes and models read it: plain, letters put together, look-alikes replaced."""
    folded = unicodedata.normalize("NFKD", text).casefold()
    plain = " ".join("".join(one for one in folded if not unicodedata.combining(one)).split()).replace("\u2019", "'")
    bare = re.sub(r"[*_`~\"]+", "", plain)
    together = _JOINED.sub("", _APART.sub(lambda match: re.sub(r"[ ._*-]+", "", match[0]), plain))
    spaced = " ".join(re.sub(r"[-._/]+", " ", plain).split())
    alike = [one.translate(_LOOKALIKES) for one in (bare, together)]
    return list(dict.fromkeys((plain, bare, spaced, together, *alike)))
