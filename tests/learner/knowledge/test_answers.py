"""Of an answer what holds for everybody stays, verbatim; courtesies, offers and one person's affairs go."""

import pytest

from learner.knowledge.answers import read_answer, sentence_kind


@pytest.mark.parametrize(
    "text",
    [
        "Refunds take 5 to 7 business days after we receive the item.",
        "Your refund is on your card within 5 business days.",
        "Your subscription stays active until the end of the month.",
        "If your order has been shipped already, refuse the parcel.",
        "Your account is locked for 30 minutes after five wrong passwords.",
        "You have 30 days to return it.",
        "Our support is open Monday to Friday from 9 am to 6 pm.",
        "We recommend updating the app.",
        "Have your order number ready when you call.",
        "We currently ship to Canada and Mexico.",
        "Please confirm the change in the e-mail that we send you.",
        "The limit is 10 MB per file.",
        "There are three plans: Basic, Plus and Pro.",
        "Your data is encrypted at rest.",
        "Unfortunately, we do not ship to islands.",
    ],
)
def test_a_rule_or_fact_is_for_everybody(text: str) -> None:
    assert read_answer(text).text == text


@pytest.mark.parametrize(
    ("sentence", "kind"),
    [
        ("The balance from your checking account is $19,756.64.", "instance"),
        ("$10,865.87 is in your checking account.", "instance"),
        ("You have $140 left.", "instance"),
        ("Your order was shipped on Monday.", "instance"),
        ("Your appointment is on Friday.", "instance"),
        ("Your ride is waiting outside.", "instance"),
        ("Your confirmation number is 88213.", "instance"),
        ("I checked your account and the subscription expired.", "reports"),
        ("On Tuesday you have an appointment with the dentist.", "instance"),
        ("Transfer $140 to Pranav from my savings account.", "instance"),
        ("I have booked the table.", "reports"),
        ("I am connecting you to an agent now.", "reports"),
        ("The transfer has been completed.", "reports"),
        ("Your reservation was unsuccessful.", "reports"),
        ("Would you like to see our new bags?", "asks"),
        ("What city are you in?", "asks"),
        ("What is the movie title.", "asks"),
        ("How about Golden Gate Pizza?", "asks"),
        ("I found 8 hotels for you.", "asks"),
        ("Take care.", "courtesy"),
        ("Okay, have a nice day.", "courtesy"),
        ("I hope you like the song.", "courtesy"),
        ("That's a pretty general question.", "courtesy"),
        ("Is there anything else I can help you with?", "courtesy"),
        ("I'm sorry to hear that!", "courtesy"),
        ("I will connect you with a colleague who can help you with that.", "courtesy"),
        ("Yes, it is!", "courtesy"),
        ("We are having an outage right now.", "passing"),
        ("The bus leaves at 7 am.", "passing"),
        ("Call me at [PHONE].", "personal"),
    ],
)
def test_what_is_not_for_everybody_is_told_by_kind(sentence: str, kind: str) -> None:
    assert sentence_kind(sentence) == kind


def test_lists_tables_and_code_stay_as_they_are() -> None:
    steps, code, table = (
        "1. Open *Billing*.\n2. Press **Export**.",
        "```\nacme run\n\n\n# why?\n```",
        "| a | b |\n| - | - |",
    )
    text = f"Do this:\n\n{steps}\n\n{code}\n\n{table}"

    assert read_answer(f"Sure! {text}\n\nLet me know if you need anything else!").text == text


def test_a_list_with_an_item_that_is_no_rule_is_broken() -> None:
    assert "broken" in read_answer("- They do laundry.\n- My pleasure. Take care.").left_out


def test_a_word_that_joins_to_what_was_left_out_is_left_out_too() -> None:
    assert read_answer("I have booked it. Also, the rating is 4.4. Also, pets are welcome.").text == (
        "The rating is 4.4. Also, pets are welcome."
    )
