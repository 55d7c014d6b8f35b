"""Personal data goes, everything else stays."""

import string
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.knowledge import privacy
from learner.knowledge.privacy import addressed_names, find_personal_data, remove_personal_data


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
        " ", "x", "7", "-", ".", "\n", "\u00e4", "(", ")", "+", ":",
    ]
)  # fmt: skip


@given(st.lists(PIECES, max_size=12).map("".join))
def test_no_rule_is_skipped_where_it_would_find_something(text: str) -> None:
    read = privacy._read(text)

    skipped = [rule.kind for rule in privacy._RULES if rule.pattern.search(text) and not rule.may_match(read)]

    assert skipped == []


def test_the_name_by_which_an_answer_greets_is_personal() -> None:
    assert addressed_names("Hello Maria, your plan stays.") == ["Maria"]
    assert addressed_names("Hello Team, thanks.") == []
