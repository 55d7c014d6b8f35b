import pytest

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
    assert read_style("x" * 2000) == Style("prose", "long", asks_back=False)
    assert read_style("Shall I book it?") == Style("prose", "short", asks_back=True)
