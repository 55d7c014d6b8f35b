"""The words that a model may use when it words a rule: those of its template, and those of how answers are written.

A list of what is forbidden always lacks the next attack; a rule is a small thing that needs few words. What asks for
stars, names a person, praises, presses or orders something else needs a word that is not here, in whatever language or
spelling. What cannot be said with these words is said by the template.
"""

import re
from collections.abc import Iterable
from typing import Final

_WORD: Final = re.compile(r"[^\W\d_]+")
_ENDINGS: Final = ("s", "es", "d", "ed", "ing", "ly", "ally", "er")
MIN_STEM: Final = 3

WORDS: Final = frozenset(
    """a about above accompany accordance across actual adapt add address after aggregate aim alert alias all allow
    along also although always ambiguous amount an and anomaly another answer any anything anywhere appear apply
    appropriate approximate are area arrange as ask aspect assume assumption asterisk at available avg avoid axes
    axis bar bare base basic be because been before begin beginning behind being below better between big block
    body bold both bottom break brief bring build bullet but by calculate call can cannot caption categorical
    category caution caveat cell change chart check choice choose chosen cite claim clarify clause cleanly clear
    close code col colloquial column combine common compact compare comparison complete comprehensive compute
    concise conclude conclusion concrete condition conditional confirm consider contain content context continue
    conversation convert could count cover create crisp critical cte cumulative cut data database date deep define
    deliver depth describe detail detailed deviation diagram differ difference different difficult direct directly
    display distinct divide do document does doesn dollar don down draw during e each easy edge either elaborate
    element else emphasise emphasize enclose end ending enough ensure entire essential estimate etc even event
    every everyday everything evidence exact example exceed exclude exhaustive explain explanation explicit
    express expression extensive extra fact failure favor favour feature fetch few figure fill filter final find
    finding finish first flag flow flowchart flowing focus follow footnote for form format frame from full
    function further g general generic get give given go going gradual graph greater grid group guess half has
    have header heading help here high higher highlight histogram hold how idea if illustrate illustration
    implicit important in incident include indent indicate individual information inline inner input insight
    instance instead interim intermediate into introduce introduction invoke is issue it item its itself join json
    just keep key know known label language large larger last later lay layout lead least leave length lengthy
    less let level like likely limit limitation line linear list listener long longer look low lower main major
    make manner many mark markdown markup match material max maximum may mean measure medium mention metric might
    mild min minimal minimise minimize minimum minor moderate more most much multi multiple must name narrative
    narrow natural neat necessary need nested never new next no node non none nor normal not notable note nothing
    notification number object obvious occasion occasional occur occurrence of off offer omit on once one one-line
    only onto open opening option or order ordered ordinary organise organize original other others otherwise out
    outer outline output over overall overview own paragraph part particular partition passage pattern per percent
    percentage phrase pick picture pie piece place plain plot point portion position possible precede precise
    prefer preferable preference prepare present primary problem procedure process produce proper property
    proportion propose prose provide purpose put quantity query question quick quote raise range rank rather ratio
    raw read readable reader reason reasonable reasoning recent record redundant refer reference refrain relate
    related relation relationship relevant reliable rely remain remark render repeated replace reply report
    request requested require required resort respond response rest restrict restructure result return right round
    row run running s same sample say scatter schema scope section segment select sensible sentence separate
    sequence sequential series set several severity shape share short shorter should show side sign significant
    simple simpler simply since single situation size skip slice small smaller so solution some something sort
    source space specific specify spike split sql stage stand standard start state statement stay step still stop
    straight straightforward strict structural structure style subject subqueries subquery subset subtotal
    succinct such suggest suggestion suitable sum summarise summarize summary supply support surface synopsis
    syntax t table tabular tail take takeaway talk task technical tell term terminology terse text than that the
    their them then there these they thing think third this thorough those three threshold through tidy tight time
    times title to together tone too tool top topic total treat trend trim triple try turn two type typical
    unclear under understand unique unit unless unnecessary unordered until up upon use used useful user users
    using usual valid value variable variant various verbose version very view visible visual visualisation
    visualise visualization visualize vocabulary wait walk want was way were what whatever when whenever where
    wherever whether which while who whole whose wide width will window wise with within without word wording work
    workflow would wrap wrapper write yes yet you your""".split()  # noqa: SIM905 - readable
)


def strange_word(rule: str, known: Iterable[str]) -> str | None:
    """Return the first word of *rule* that is neither in ``WORDS`` nor in the texts *known*, or None.

    >>> strange_word("Show the options in a table and mention Petra.", ["Present the answer as a Markdown table."])
    'petra'
    """
    own = {word for text in known for word in _words(text)}
    return next((word for word in _words(rule) if not _is_known(word, own)), None)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _is_known(word: str, own: set[str]) -> bool:
    if word in WORDS or word in own:
        return True
    stems = [word[: -len(ending)] for ending in _ENDINGS if word.endswith(ending)]
    found = [form for stem in stems if len(stem) >= MIN_STEM for form in (stem, f"{stem}e", stem[:-1], f"{stem[:-1]}y")]
    return any(form in WORDS or form in own for form in found)
