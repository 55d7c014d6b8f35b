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
_HIDDEN: Final = frozenset(("Cf", "Cc", "Co", "Cn", "Cs", "Zl", "Zp"))  # categories of characters
_APART: Final = re.compile(
    r"(?<![^\W_])(?!a )[^\W_]([ ._*-])(?:[^\W_]\1){2,}[^\W_](?![^\W_])"
)  # i g n o r e, i.g.n.o.r.e
_JOINED: Final = re.compile(r"(?<=[^\W\d_])[._*~`|^-]+(?=[^\W\d_])")  # ig-nore
_MARKUP: Final = re.compile(r"<[/!\w]|\[[^\]]*\]\(|!\[|```|~~~|\{\{|&#?\w+;|^\s*(?:#|>|\|)")
_LINK: Final = re.compile(
    r"[a-z][a-z0-9+.-]{1,15}://|\b(?:javascript|data|mailto):\S|\bwww\."
    r"|[a-z0-9-]{2,}\.(?:com|org|net|io|ai|app|dev|ru|cn|de|me|info|biz|xyz|top|site|link|ly|gg)\b",
    re.IGNORECASE,
)
_BLOB: Final = re.compile(r"[A-Za-z0-9+/=]{32,}|(?:\\x[0-9a-f]{2}|%[0-9a-f]{2}|\\u[0-9a-f]{4}){3,}", re.IGNORECASE)
_ROLE: Final = re.compile(r"^\W*(?:system|assistant|user|developer|human|ai)\s*:|\[/?inst\]|<\|", re.IGNORECASE)

# English, German, French, Spanish, Portuguese, Italian: as models word things when they are led to another language.
_ORDERS: Final = re.compile(
    r"""\b(?:ignor\w*|disregard\w*|forget\w*|overrid\w*|bypass\w*|supersed\w*|circumvent\w*|neglect\w*|vergiss\w*
        |missacht\w*|oubli\w*|olvid\w*|esquec\w*|dimentic\w*|do\ not\ (?:follow|obey)|don'?t\ (?:follow|obey)
        |stop\ (?:following|obeying)|instead\ of\ (?:the|your|all|any)\ (?:other\ )?(?:instruction|rule)\w*)
      \b.{0,60}(?:instruct|instruk|instrucc|instruc|istruzion|prompt|\brules?\b|regel|regl|regol|guideline|polic|above
        |previous|prior|earlier|anweisung|consign|anterior|precedent|everything|restriction|safety|constraint|\bsystem\b)
    | \b(?:system|developer|hidden|secret|initial)\s+(?:prompt|message|instruction)
    | \b(?:takes?|has|have)\s+(?:precedence|priority)\s+over | \babove\ all\ other | \bjailbr[eo]ak | \bdan\ mode
    | \byou\ are\ (?:now|no\ longer) | \bpretend\ (?:to\ be|you)
          | \bact\ as\ (?:an?\ )?(?:unrestricted|admin|root|system)
    | \breveal\b.{0,40}\b(?:instruction|prompt|key|secret|password) | \bnew\ instructions?\b""",
    re.VERBOSE,
)
_BANNED: Final = {
    "asks for votes": re.compile(
        r"""\bthumbs?\s?up | \bthumb\b | \bup\s?vot | \bvot(?:e|es|ing)\b | \brat(?:e|es|ing|ings)\b(?!\ of\b)
          | \bstars?\b | \bfeedback\b | \breview\ us | \bsatisfaction\ (?:score|survey)
          | \bbewert | \bdaumen | \bsterne | \bpouce | \bnotez\b | \betoiles? | \bpulgar | \bestrella | \bvotez?
          | \bvota
          | \bcalificacion | \bavalia | \bpollice | \blike\ (?:button|this\ answer) | \bscore\ (?:this|the|your|me)\b
          | [\U0001f44d\U0001f44e\u2b50\u2605\U0001f31f]""",
        re.VERBOSE,
    ),
    "flatters": re.compile(
        r"""\bflatter | \bcompliment(?!ary) | \bprais(?:e|es|ing)\b
          | \b(?:great|good|excellent|wonderful|smart|amazing)\ question
          | \bbrilliant | \badmir(?:e|ing|ation) | \bhow\ (?:smart|clever|intelligent) | \bgenius
          | \bschmeich | \blob(?:e|en)\b
          | \bflatt(?:ez|er)\b | \bfelicit | \belogi | \bhalag | \badul | \bcomplimenti | \bintelligent\ they
          | \bagree\ with\ (?:everything|whatever|the\ user)
          | \btell\ (?:the\ user|them)\ (?:that\ )?they(?:'re|\ are)""",
        re.VERBOSE,
    ),
    "urges": re.compile(
        r"""\burgen | \bact\ (?:now|fast|today) | \bhurry | \bimmediate | \blimited\s(?:time|offer) | \basap\b
          | \bright\ (?:now|away)\b
          | \bbefore\ it'?s?\ (?:is\ )?too\ late | \blast\ chance | \bonly\ today | \bdringend | \bsofort\b | \bbeeil
          | \bdepech
          | \bimmediat | \bapresur | \bsubito\b | \bfear\ of\ missing | \bdon'?t\ (?:miss|wait)""",
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
    if any(unicodedata.category(character) in _HIDDEN for character in rule):
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
