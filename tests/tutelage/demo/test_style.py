import pytest

from learner.patterns.wording import TEMPLATES
from tutelage.demo.style import Style, obey, read_style

PLAIN = Style("prose", "medium", asks_back=False)


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("Answer as a Markdown table.", Style("table", "medium", asks_back=False)),
        ("Answer as a bulleted list.", Style("list", "medium", asks_back=False)),
        ("Give the steps as a numbered list.", Style("list", "medium", asks_back=False)),
        ("Answer in at most three sentences.", Style("prose", "short", asks_back=False)),
        ("Answer in detail.", Style("prose", "long", asks_back=False)),
        ("End with a follow-up question.", Style("prose", "medium", asks_back=True)),
        ("Prefer the customer's own words.", PLAIN),
    ],
)
def test_a_rule_changes_what_it_speaks_of(rule: str, wanted: Style) -> None:
    assert obey(PLAIN, [rule]) == wanted


@pytest.mark.parametrize(
    ("dimension", "value", "wanted"),
    [
        ("response_format", "table", Style("table", "medium", asks_back=False)),
        ("response_format", "list", Style("list", "medium", asks_back=False)),
        ("response_format", "prose", PLAIN),
        ("length", "short", Style("prose", "short", asks_back=False)),
        ("length", "medium", PLAIN),
        ("length", "long", Style("prose", "long", asks_back=False)),
        ("strategy", "step_by_step", Style("list", "medium", asks_back=False)),
        ("strategy", "summary_first", PLAIN),
        ("follow_up", "question", Style("prose", "medium", asks_back=True)),
        ("follow_up", "suggestions", PLAIN),
        ("follow_up", "none", PLAIN),
    ],
)
def test_the_learners_own_wording_is_obeyed(dimension: str, value: str, wanted: Style) -> None:
    assert obey(PLAIN, [TEMPLATES[dimension, value]]) == wanted


def test_the_learners_wording_takes_back_what_the_model_would_have_done() -> None:
    style = Style("table", "long", asks_back=True)
    assert obey(style, [TEMPLATES["response_format", "prose"]]).format == "prose"
    assert obey(style, [TEMPLATES["length", "medium"]]).length == "medium"
    assert not obey(style, [TEMPLATES["follow_up", "none"]]).asks_back


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("Answer in prose, not as a table.", Style("prose", "short", asks_back=True)),
        ("Do not use bullet lists.", Style("prose", "short", asks_back=True)),
        ("Do not end with a follow-up question.", Style("table", "short", asks_back=False)),
    ],
)
def test_a_refusal_is_not_read_as_a_wish(rule: str, wanted: Style) -> None:
    assert obey(Style("table", "short", asks_back=True), [rule]) == wanted


def test_a_reader_sees_the_form_of_an_answer() -> None:
    assert read_style("| a | b |\n| --- | --- |\n| 1 | 2 |").format == "table"
    assert read_style("- one\n- two").format == "list"
    assert read_style("x" * 2001) == Style("prose", "long", asks_back=False)
    assert read_style("Shall I book it?") == Style("prose", "short", asks_back=True)
