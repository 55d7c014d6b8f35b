"""Simulated users: who they are, what they secretly like, how they react to an answer. Seeded, without any I/O."""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tutelage.demo.library import Exchange
from tutelage.demo.model import is_easy
from tutelage.demo.style import Style, read_style

Trait = Literal["format", "length", "asks_back"]
NextStep = Literal["leave", "go_on", "ask_again", "regenerate"]

# A question's type by the intent of the conversation that it was taken from.
QUESTION_TYPES: Mapping[str, frozenset[str]] = {
    "compare_travel": frozenset(
        {
            "SearchOnewayFlight",
            "SearchRoundtripFlights",
            "ReserveOnewayFlight",
            "ReserveRoundtripFlights",
            "FindBus",
            "BuyBusTicket",
            "GetCarsAvailable",
            "ReserveCar",
            "GetRide",
        }
    ),
    "how_to_book": frozenset(
        {"ReserveRestaurant", "ReserveHotel", "BookHouse", "BuyEventTickets", "BookAppointment", "ScheduleVisit"}
    ),
    "account": frozenset({"CheckBalance", "TransferMoney"}),
    "find_places": frozenset(
        {"FindRestaurants", "SearchHotel", "SearchHouse", "FindApartment", "FindAttractions", "FindProvider"}
    ),
    "media": frozenset({"FindMovies", "GetTimesForMovie", "PlayMovie", "PlayMedia", "LookupMusic", "LookupSong"}),
    "calendar": frozenset({"GetAvailableTime", "AddEvent", "GetEvents", "FindEvents", "GetEventDates", "GetWeather"}),
}
TRAFFIC_SHARES: Mapping[str, float] = {
    "compare_travel": 0.24,
    "how_to_book": 0.24,
    "account": 0.22,
    "find_places": 0.14,
    "media": 0.10,
    "calendar": 0.06,
}


@dataclass(frozen=True, slots=True)
class Preference:
    """What one trait of an answer does to the mood of whoever reads it, for one type of question."""

    question_type: str
    trait: Trait
    value: str  # of Style's field of that name; "True" or "False" for asks_back
    effect: float  # on the logit of a thumbs-up it counts 1.4 times, on copies and further questions less

    def holds(self, question_type: str, style: Style) -> bool:
        return question_type == self.question_type and str(getattr(style, self.trait)) == self.value


# Every other combination of type, trait and value does nothing.
PREFERENCES: Sequence[Preference] = (
    Preference("compare_travel", "format", "table", 1.6),
    Preference("how_to_book", "format", "list", 1.5),
    Preference("account", "length", "short", 1.6),
    Preference("calendar", "asks_back", "True", -0.8),
)
# Looks good in the records, because the model answers easy questions in lists, and does nothing.
FALSE_FRIENDS: Sequence[Preference] = (
    Preference("find_places", "format", "list", 0.0),
    Preference("media", "format", "list", 0.0),
)
EASE = 0.5  # an easy question lifts its reader's mood by this, another lowers it
NOISE = 0.5  # standard deviation of what nobody can explain
VOTE_RATE = 0.40  # share of responses that an average user votes on; in the wild about 0.08


@dataclass(frozen=True, slots=True)
class User:
    id: str
    activity: float  # share of all conversations
    mood: float  # added to every reaction
    vote_rate: float  # 0 .. 1


@dataclass(frozen=True, slots=True)
class Reaction:
    """What a user does after reading an answer."""

    thumb: Literal["thumbs_up", "thumbs_down"] | None
    is_copied: bool
    dwell_s: float
    next_step: NextStep

    def signals(self, response_id: str, user_id: str) -> list[dict[str, Any]]:
        """Return the items for ``POST /v1/feedback``; asking again is no item, the learner finds it in the traffic."""
        named = {"response_id": response_id, "user": user_id}
        found: list[dict[str, Any]] = []
        if self.thumb:
            found.append({**named, "signal": self.thumb})
        if self.is_copied:
            found.append({**named, "signal": "copy"})
        if self.dwell_s > 60:
            found.append({**named, "signal": "dwell_time", "value": self.dwell_s})
        return found


@dataclass(frozen=True, slots=True)
class Visit:
    """The start of a conversation."""

    number: int
    at_s: float  # seconds since the replay's start
    user: User
    question_type: str
    question: str


def question_pool(exchanges: Iterable[Exchange]) -> dict[str, list[str]]:
    """Return the different real questions of each type: turns that ask for something, not thanks or consent."""
    pool: dict[str, dict[str, None]] = {name: {} for name in QUESTION_TYPES}
    for exchange in exchanges:
        for name, intents in QUESTION_TYPES.items():
            if exchange.intent in intents and _is_question(exchange.question):
                pool[name][exchange.question] = None
    return {name: list(questions) for name, questions in pool.items()}


def _is_question(text: str) -> bool:
    words = text.lower().split()
    asks = ("?", "i need", "i'd like", "i want", "please", "can you", "looking for", "find")
    return 5 <= len(words) <= 30 and any(sign in text.lower() for sign in asks) and "thank" not in text.lower()


def make_users(seed: int, count: int) -> list[User]:
    """Return *count* users: a few talk a lot, one in seven is grumpy, one in seven enthusiastic."""
    draw = random.Random(f"users {seed}")  # noqa: S311 - a repeatable draw, nothing secret
    activity = [draw.paretovariate(1.3) for _ in range(count)]
    # Nobody makes more than 5 % of the traffic of an average demo.
    capped = [min(value, 0.05 * sum(activity)) for value in activity]
    users = []
    for number, value in enumerate(capped):
        kind = draw.choices((0.0, -0.9, 0.9), weights=(5, 1, 1))[0]
        eager = 1.5 if kind else 0.8
        users.append(
            User(
                id=f"u-{number:03d}",
                activity=value / sum(capped),
                mood=kind + draw.gauss(0, 0.3),
                vote_rate=min(0.8, VOTE_RATE * eager * draw.gammavariate(4, 0.25)),
            )
        )
    return users


def make_visits(
    seed: int, users: Sequence[User], pool: Mapping[str, Sequence[str]], *, count: int, days: int
) -> list[Visit]:
    """Return *count* starts of conversations over *days* days, by time; fewer at night."""
    draw = random.Random(f"visits {seed}")  # noqa: S311
    chosen_users = draw.choices(users, weights=[user.activity for user in users], k=count)
    types = list(TRAFFIC_SHARES)
    chosen_types = draw.choices(types, weights=list(TRAFFIC_SHARES.values()), k=count)
    moments = sorted(
        draw.randrange(days) * 86400 + min(max(draw.gauss(13, 4), 0), 23.9) * 3600 + draw.random() for _ in range(count)
    )
    return [
        Visit(number, at_s, user, question_type, draw.choice(pool[question_type]))
        for number, (at_s, user, question_type) in enumerate(zip(moments, chosen_users, chosen_types, strict=True))
    ]


def liking(user: User, question_type: str, question: str, style: Style) -> float:
    """Return how much *user* likes an answer in *style*, before noise; 0 is indifference."""
    ease = EASE if is_easy(question) else -EASE
    learned = sum(preference.effect for preference in PREFERENCES if preference.holds(question_type, style))
    return user.mood + ease + learned


def react(user: User, question_type: str, question: str, reply: str, draw: random.Random) -> Reaction:
    """Return what *user* does after reading *reply*: the more liking, the more thumbs-up and the fewer questions."""
    latent = liking(user, question_type, question, read_style(reply)) + draw.gauss(0, NOISE)
    votes = draw.random() < user.vote_rate
    is_up = draw.random() < _logistic(-0.7 + 1.4 * latent)
    is_copied = draw.random() < _logistic(-1.5 + 0.7 * latent)
    lingers = draw.random() < _logistic(-3.0 - 0.4 * latent)
    return Reaction(
        thumb=("thumbs_up" if is_up else "thumbs_down") if votes else None,
        is_copied=is_copied,
        dwell_s=round(61 + draw.expovariate(1 / 30), 1) if lingers else round(5 + draw.expovariate(1 / 10), 1) % 60,
        next_step=_next_step(latent, draw),
    )


def _next_step(latent: float, draw: random.Random) -> NextStep:
    if draw.random() < _logistic(-4.0 - 0.8 * latent):
        return "regenerate"
    if draw.random() < _logistic(-1.4 - 0.9 * latent):
        return "ask_again"
    return "go_on" if draw.random() < 0.35 else "leave"


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value))
