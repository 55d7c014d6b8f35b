"""The tenant's own words: better none than a silly one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.patterns.terminology import Ordinary, _stems, tenant_terms, terms_in
from store.tokens import load_token_counter
from tutelage.demo.library import Library
from tutelage.demo.sample import load_sample


@pytest.fixture(scope="module")
def ordinary() -> Ordinary:
    return Ordinary(load_token_counter())


def found(replies: list[str], ordinary: Ordinary, *, n_users: int = 50) -> dict[str, int]:
    """Return the terms of *replies*, which go to *n_users* users in turn, and how many replies hold each."""
    held = [terms_in(ordinary.read(reply), "") for reply in replies]
    users = [index % n_users for index in range(len(replies))]
    found = tenant_terms([" ".join(terms) for terms in held], users)
    return {term: sum(term in terms for terms in held) for term in found}


OTHERS = ["The order is on its way and should be there by the end of this week."] * 100


def test_a_word_of_the_trade_is_a_term(ordinary: Ordinary) -> None:
    replies = ["We have asked the bank for a chargeback, which can take up to ten days."] * 30

    assert found(replies + OTHERS, ordinary) == {"chargeback": 30}


@pytest.mark.parametrize("product", ["SmartBasket", "ProPlan", "eSign", "AcmeFlow", "DataHubPro", "myAcme"])
def test_a_product_with_an_inner_capital_is_a_term(product: str, ordinary: Ordinary) -> None:
    replies = [f"You can keep the offer in your {product} until the end of the month."] * 30

    assert found(replies + OTHERS, ordinary) == {product: 30}


@pytest.mark.parametrize("product", ["iPhone", "YouTube", "JavaScript", "GitHub", "PayPal", "LinkedIn", "WhatsApp"])
def test_a_product_that_everybody_knows_is_none(product: str, ordinary: Ordinary) -> None:
    replies = [f"You can keep the offer in your {product} until the end of the month."] * 30

    assert found(replies + OTHERS, ordinary) == {}


@pytest.mark.parametrize("acronym", ["QBRX", "KYCR", "RMAQ", "SLA", "KPI", "ARR", "ROI", "MQL", "NPS", "SSO", "EBITDA"])
def test_an_acronym_of_the_house_is_a_term(acronym: str, ordinary: Ordinary) -> None:
    replies = [f"We have opened the {acronym} for you and will write as soon as it is done."] * 30

    assert found(replies + OTHERS, ordinary) == {acronym: 30}


@pytest.mark.parametrize(
    "word",
    ["PDF", "PLEASE", "USA", "HTTP", "IMPORTANT", "REFUNDED", "NOTE", "PETALUMA", "FAQ", "NEVER", "STOP", "SQL", "GPS"],
)
def test_an_acronym_that_everybody_knows_and_a_shout_are_none(word: str, ordinary: Ordinary) -> None:
    replies = [f"We have opened the {word} for you and will write as soon as it is done."] * 30

    assert found(replies + OTHERS, ordinary) == {}


def test_a_name_that_is_shouted_now_and_then_is_none(ordinary: Ordinary) -> None:
    replies = ["We have written to RAGHV for you and will write as soon as it is done."] * 30
    spoken = ["We have written to Raghv for you and will write as soon as it is done."] * 10

    assert found(replies + spoken + OTHERS, ordinary) == {}


@pytest.mark.parametrize(
    "name",
    [
        "San Francisco",
        "Petaluma",
        "Tuesday",
        "December",
        "Raghav",
        "McKinley",
        "DeShawn",
        "Rocknwraps",
        "Station",
        "MacDonald",
        "FitzGerald",
        "AnnMarie",
        "LeBron",
        "VanDyke",
    ],
)
def test_a_name_is_none(name: str, ordinary: Ordinary) -> None:
    replies = [f"There is a table for two people at {name} in the evening, and it is free."] * 30

    assert found(replies + OTHERS, ordinary) == {}


def test_a_name_that_somebody_wrote_in_lower_case_is_none(ordinary: Ordinary) -> None:
    replies = ["There is a bus that leaves for Petaluma in the evening, and it is free."] * 30
    careless = ["there is a bus that leaves for petaluma in the evening, and it is free."] * 30

    assert found(replies + careless + OTHERS, ordinary) == {}


@pytest.mark.parametrize("word", ["reservations", "unfurnished", "rescheduling", "refunded", "invoices", "overpriced"])
def test_a_word_of_ordinary_english_is_none(word: str, ordinary: Ordinary) -> None:
    replies = [f"This is about the {word} that you have asked for in the last two weeks."] * 30

    assert found(replies + OTHERS, ordinary) == {}


def test_a_term_needs_many_users_and_is_not_everywhere(ordinary: Ordinary) -> None:
    replies = ["We have asked the bank for a chargeback, which can take up to ten days."] * 30

    assert found(replies + OTHERS, ordinary, n_users=15) == {}
    assert found(replies * 3 + OTHERS, ordinary) == {}


def test_what_the_user_said_first_is_no_term_of_the_tenants(ordinary: Ordinary) -> None:
    reply = "We have asked the bank for a chargeback, which can take up to ten days."

    assert terms_in(ordinary.read(reply), "how long does the Chargeback take?") == ()
    assert terms_in(ordinary.read(reply), "how long does it take?") == ("chargeback",)


def test_code_and_addresses_are_no_prose(ordinary: Ordinary) -> None:
    reply = (
        "Run `chargeback` or call it like this, then have a look at https://chargeback.example/x.\n```\nescrow()\n```"
    )

    assert terms_in(ordinary.read(reply), "") == ()


@pytest.mark.parametrize(
    "reply",
    [
        "Der Wagen steht heute in der Werkstatt und wird morgen abgeholt, Ihre Rechnung erhalten Sie per Post.",
        "Vous pouvez annuler votre commande dans les trente jours et nous vous rembourserons le montant.",
        "Aap apna order tees din ke andar cancel kar sakte hain aur hum paise wapas kar denge.",
    ],
)
def test_another_language_has_no_terms(reply: str, ordinary: Ordinary) -> None:
    assert terms_in(ordinary.read(reply), "") == ()


def test_real_conversations_about_travel_and_leisure_have_none(ordinary: Ordinary) -> None:
    replies = [exchange.answer for exchange in Library(load_sample()).exchanges]

    assert len(replies) > 400
    assert found(replies, ordinary, n_users=len(replies)) == {}


TOKENS = load_token_counter()
PARTS = st.sampled_from(["un", "plan", "city", "cit\u00e9", "work", "zorvex", "s", "ing", "ness", "\u212a", "nn", "e"])


@given(st.lists(PARTS, min_size=1, max_size=4).map("".join))
def test_a_word_is_ordinary_when_it_or_a_stem_of_it_is_one_token(word: str) -> None:
    forms = [word.lower(), *_stems(word.lower())]
    is_one = [TOKENS.is_one(f" {case}") for form in forms for case in (form, form.capitalize(), form.upper())]

    assert Ordinary(TOKENS).is_ordinary(word) == (TOKENS.is_one(f" {word}") or any(is_one))
