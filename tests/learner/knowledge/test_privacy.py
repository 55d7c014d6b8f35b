"""Personal data goes, everything else stays."""

import re
import string
import time
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.knowledge import personal_rules
from learner.knowledge.privacy import (
    Placeholders,
    addressed_names,
    declared_names,
    find_personal_data,
    remove_personal_data,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mail ann.lee+shop@mail.example.co.uk now", "Mail [EMAIL] now"),
        ("Call 408-971-8523.", "Call [PHONE]."),
        ("Call (408) 971-8523!", "Call [PHONE]!"),
        ("Call +919876543210", "Call [PHONE]"),
        ("Call me at 9876543210 please", "Call me at [PHONE] please"),
        ("Card 4111 1111 1111 1111 expired", "Card [CARD] expired"),
        ("IBAN DE89 3704 0044 0532 0130 00.", "IBAN [IBAN]."),
        ("from 192.168.10.4:", "from [IP]:"),
        ("from 2001:db8::8a2e:370:7334 today", "from [IP] today"),
        ("My SSN is 078-05-1120.", "My SSN is [ID]."),
        ("key sk-proj-abcdefghijklmnop1234", "key [SECRET]"),
        ("my password is hunter2!x", "my password is [SECRET]"),
        ("I live at 71 North San Pedro Street, Apt 4", "I live at [ADDRESS]"),
        ("Ich wohne in der Hauptstraße 12", "Ich wohne in der [ADDRESS]"),
        ("Hello, my name is Ann Lee.", "Hello, my name is [NAME]."),
    ],
)
def test_what_identifies_or_opens_is_replaced_by_its_kind(text: str, expected: str) -> None:
    assert remove_personal_data(text, ["Ann Lee"]) == expected


@pytest.mark.parametrize(
    "text",
    [
        "It costs $1,299.00 or 1.299,00 EUR, that is 12 x 108.25.",
        "On 2026-11-21 at 12:30:15, or 21/11/2026, or March 12th 2019 at 8 pm.",
        "Order 20261121-000123 with 3 items of type A-100-200.",
        "Version 3.11.7 of the app, build 1234567890, takes 5000000 rows.",
        "Your password is required. The pin is printed on the card.",
        "Open 24 hours, 7 days; 30 day returns; 5 star drive; 2 way street.",
        "The ratio is 16:9 and the score was 3:2.",
    ],
)
def test_prices_dates_and_order_words_stay(text: str) -> None:
    assert remove_personal_data(text) == text


@given(st.integers(1, 10**7), st.sampled_from(["$", "€", "EUR ", "USD "]))
def test_no_price_is_personal(cents: int, currency: str) -> None:
    assert find_personal_data(f"It costs {currency}{cents / 100:,.2f} a month.") == []


@given(st.dates())
def test_no_date_is_personal(date: object) -> None:
    assert find_personal_data(f"It ends on {date} or so.") == []


DATA = Path(__file__).parent / "data"
LOCAL = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=12)


@given(LOCAL, LOCAL, st.text(string.ascii_letters + " ,.!", max_size=30))
def test_no_mail_address_survives(user: str, domain: str, around: str) -> None:
    assert f"{user}@{domain}" not in remove_personal_data(f"{around} {user}@{domain}.com {around}")


@given(st.text(max_size=200))
def test_findings_never_overlap_and_removal_is_stable(text: str) -> None:
    findings = find_personal_data(text)

    assert all(first.end <= second.start for first, second in pairwise(findings))
    removed = remove_personal_data(text)
    assert find_personal_data(removed) == [] or len(removed) < len(text) + 20


PIECES = st.sampled_from(
    [
        "sk-abcdefghijklmnopq", "xoxb-abcdefghij", "Bearer abcdefghijklmnop", "-----BEGIN PRIVATE KEY-----",
        "PASSWORD IS a1!", "p\u0131n is 1234", "Pin: 99x", "api key is k9!", "a@b.c", "DE89 3704 0044 0532 0130 00",
        "4111 1111 1111 1111", "078-05-1120", "1.2.3.4", "::1", "2001:db8::1", "+49 (30) 1234567", "1 (408) 971-8523",
        "(408) 971 8523", "030 123456", "call me at 1234567", "71 North San Pedro Street", "12 4th Ave", "Baumweg 4",
        "api_token=9f8e7d6c", "p\u017fwd: a1b", "otp 4711", "\u212aey: k9", "ann at example dot com", "ann(at)x.de",
        "https://a:b1c@d", "Authorization: Basic YTpi", "00:1b:44:11:3a:b7", "00-1B-44-11-3A-B7", "born on 1984-03-12",
        "passport X1234567", "AB 12 34 56 C", "390.533.447-05", "RSSMRA85T10A562S", "020 7946 0958", "PO Box 12",
        "12 Rue de Rivoli", "Via Roma 22", "zip 12345", "SG.abcdefghijklmnop.abcdefghijklmnop", "cvv ", "code",
        " ", "x", "7", "-", ".", "\n", "\u00e4", "(", ")", "+", ":",
    ]
)  # fmt: skip


@given(st.lists(PIECES, max_size=12).map("".join))
def test_no_rule_is_skipped_where_it_would_find_something(text: str) -> None:
    clues = personal_rules.read_clues(text)

    skipped = [rule for rule in personal_rules.RULES if rule.pattern.search(text) and not rule.may_match(clues)]

    assert skipped == []


def test_the_name_by_which_an_answer_greets_is_personal() -> None:
    assert addressed_names("Hello Maria, your plan stays.") == ["Maria"]
    assert addressed_names("Hello Team, thanks.") == []


def cases(name: str) -> list[str]:
    lines = (DATA / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


def marked(case: str) -> tuple[str, list[tuple[int, int]]]:
    """Return a text and where in it something is marked."""
    parts = re.split("[\u27e6\u27e7]", case)
    ends = [sum(map(len, parts[:number])) for number in range(1, len(parts) + 1)]
    return "".join(parts), list(zip(ends[0::2], ends[1::2], strict=False))


def characters(text: str, spans: Iterable[tuple[int, int]]) -> set[int]:
    return {place for start, end in spans for place in range(start, end) if text[place].isalnum()}


def found_in(text: str) -> list[tuple[int, int]]:
    findings = find_personal_data(text, [*declared_names(text), *addressed_names(text)])
    return [(finding.start, finding.end) for finding in findings]


@pytest.mark.parametrize(("name", "recall", "precision"), [("personal", 0.97, 0.99), ("personal_unseen", 0.85, 0.9)])
def test_of_many_forms_nearly_all_are_found_and_nothing_beside_them(name: str, recall: float, precision: float) -> None:
    texts = [marked(case.partition(": ")[2]) for case in cases(f"{name}.txt")]
    look_alikes = cases(f"not_{name}.txt")
    wanted = [(text, characters(text, [span])) for text, spans in texts for span in spans]

    n_found = sum(meant <= characters(text, found_in(text)) for text, meant in wanted)
    n_beside = sum(not characters(text, found_in(text)) <= characters(text, spans) for text, spans in texts)
    n_false = sum(bool(found_in(text)) for text in look_alikes)

    assert n_found / len(wanted) >= recall
    assert n_found / (n_found + n_beside + n_false) >= precision


def test_a_first_name_alone_is_whoever_was_called_so_in_full() -> None:
    placeholders = Placeholders()
    texts = ["Ann Lee wrote to Bob Ray.", "Ann will call, says Bob.", "Will it rain?"]
    removed = [remove_personal_data(text, ["Ann Lee", "Bob Ray", "Will Ray"], placeholders) for text in texts]
    assert removed == ["[NAME] wrote to [NAME 2].", "[NAME] will call, says [NAME 2].", "Will it rain?"]


def test_of_one_conversation_each_datum_keeps_its_placeholder() -> None:
    placeholders = Placeholders()
    first = remove_personal_data("Call +44 20 7946 0958 or +49 30 1234567.", (), placeholders)
    second = remove_personal_data("+49 (30) 1234567 is better, or mail a@example.com.", (), placeholders)
    assert (first, second) == ("Call [PHONE] or [PHONE 2].", "[PHONE 2] is better, or mail [EMAIL].")


@pytest.mark.parametrize(
    "piece", ["1 ", "+1", "a@", "a.", "12 A", "AB12 ", ":", "1-", "x at ", "key: ", "4111 ", "0(", "408-971-8523 "]
)
def test_no_text_of_a_stranger_takes_long(piece: str) -> None:
    started = time.process_time()
    find_personal_data(piece * (100_000 // len(piece)))
    assert time.process_time() - started < 5
