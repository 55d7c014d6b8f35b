"""A question is kept when somebody who read nothing else understands it, or when its subject can be named."""

import time

import pytest

from learner.knowledge.answers import read_answer
from learner.knowledge.questions import core_question, is_request, is_wish, leans_on_before, rephrased, with_subject
from learner.knowledge.subjects import subject


@pytest.mark.parametrize(
    "question",
    [
        "What year is this song from?",
        "Which bus station does that bus leave from?",
        "What genre is the movie, and who is the director?",
        "Do they got laundry service? How is their rating?",
        "Can I return them?",
        "And what about the other one?",
        "How long does it take?",
        "Is it free to enter?",
    ],
)
def test_a_question_without_its_own_subject_leans(question: str) -> None:
    assert leans_on_before(question)


@pytest.mark.parametrize(
    "question",
    [
        "How long do refunds take?",
        "My headphones arrived broken, can I return them?",
        "How long does it take to get a refund?",
        "Is there a student discount?",
        "Can I cancel an order once it has shipped?",
        "Is the warranty transferable?",
        "I lost my card, how do I block it?",
    ],
)
def test_a_question_that_names_its_subject_does_not_lean(question: str) -> None:
    assert not leans_on_before(question)


@pytest.mark.parametrize(
    "text", ["How are you today?", "Tell me a joke please", "When will I be arriving?", "It it on?"]
)
def test_a_chat_or_a_garbled_text_is_no_request(text: str) -> None:
    assert not is_request(text)


@pytest.mark.parametrize("text", ["I want to go to Long Beach.", "Can you find a salon?", "I need 4 tickets."])
def test_who_wants_something_found_or_booked_has_a_wish(text: str) -> None:
    assert is_wish(text)


@pytest.mark.parametrize(
    "text", ["I want to cancel my subscription.", "I'd like a refund.", "I need help, I can't log in."]
)
def test_who_has_a_problem_has_no_such_wish(text: str) -> None:
    assert not is_wish(text)


def test_greetings_personal_data_and_passing_remarks_are_left_out() -> None:
    text = "Hello, my name is [NAME]. I ordered yesterday. I'm on the old plan. Will my price go up? Thanks!"

    assert core_question(text, is_whole=True) == "I'm on the old plan. Will my price go up?"
    assert core_question(text) == "Will my price go up?"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("How about 92nd Street Y which is a Performing Arts Venue.", "92nd Street Y"),
        ("You should visit the Shopping Area named Bondi Markets.", "Bondi Markets"),
        ("I'll play Treat You Better on the TV, is that okay?", "Treat You Better"),
        ("Booking a table at Union Hotel Restaurants in Santa Rosa.", "Union Hotel Restaurants in Santa Rosa"),
    ],
)
def test_a_subject_is_a_whole_name(text: str, name: str) -> None:
    found = subject(text)

    assert found is not None
    assert found.text == name


@pytest.mark.parametrize(
    "text",
    [
        "Should I try for 1 pm on March 13th?",
        "Ok, there is one. It's 4850 a month.",
        "So 3 people from next Monday to next Thursday?",
        "How about some Mexican of Indian food?",
        "There is a balboa theatre at the Performing Arts venue.",
        "At Oracle Park I found an event called Giants Vs Phillies.",
    ],
)
def test_the_start_of_a_sentence_a_kind_or_an_occasion_is_no_subject(text: str) -> None:
    assert subject(text) is None


@pytest.mark.parametrize(
    ("question", "named"),
    [
        ("Do they serve wine?", "Does Great Clips serve wine?"),
        ("Is it child friendly?", "Is Great Clips child friendly?"),
        ("What is the salon's average rating?", "What is Great Clips's average rating?"),
        ("Are pets allowed?", "About Great Clips: Are pets allowed?"),
    ],
)
def test_a_subject_takes_the_place_of_what_points_at_it(question: str, named: str) -> None:
    assert with_subject(question, "Great Clips")[0] == named


@pytest.mark.parametrize(
    "question", ["Do you ship to Canada?", "My parcel is late", "Can you change my plan?", "Refund?"]
)
def test_every_question_has_two_more_phrasings_that_end_as_it_does(question: str) -> None:
    more = rephrased(question)

    assert len(more) >= 2
    assert all(text.lower().endswith(question.lower()[-6:]) for text in more)


@pytest.mark.parametrize(
    "unit", ["I found 1 ", "A of ", "you have ", "and the abc ", "hi, ", "- x\n", "your ", "? ", "A."]
)
def test_a_strangers_long_text_is_read_in_linear_time(unit: str) -> None:
    text = unit * (40_000 // len(unit))
    started_s = time.process_time()

    read_answer(text)
    leans_on_before(core_question(text, is_whole=True))
    is_wish(text)
    subject(text)

    assert time.process_time() - started_s < 2.0  # quadratic ones take ten and more


def test_a_wish_that_ends_in_a_question_keeps_its_opening() -> None:
    question = "I would like to return shoes, can I send them by mail?"

    assert all(question.lower() in text.lower() for text in rephrased(question))


@pytest.mark.parametrize(
    ("text", "core"),
    [
        ("What is the average rating by the way?", "What is the average rating?"),
        ("By the way, do you ship to Canada?", "Do you ship to Canada?"),
        ("I'm not sure, what genre is it from?", "What genre is it from?"),
        ("are pets allowed?", "Are pets allowed?"),
    ],
)
def test_a_question_is_kept_without_asides_and_begins_like_a_sentence(text: str, core: str) -> None:
    assert core_question(text) == core
