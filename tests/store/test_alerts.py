"""Alerts for a person."""

from store.alerts import acknowledge_alert, last_alert, list_alerts, raise_alert
from store.database import Database
from store.vocabulary import DEFAULT_TENANT
from tests.conftest import NOW_S


def test_alerts_are_listed_the_newest_first_and_stay_when_acknowledged(db: Database) -> None:
    made = [
        raise_alert(db, DEFAULT_TENANT, kind="crash", message="fell", detail={"n": i}, run_id=None, now_s=NOW_S + i)
        for i in range(3)
    ]
    acknowledge_alert(db, DEFAULT_TENANT, made[0], now_s=NOW_S + 9)

    first, cursor = list_alerts(db, DEFAULT_TENANT, limit=2)
    rest, end = list_alerts(db, DEFAULT_TENANT, limit=2, cursor=cursor)

    assert [alert.id for alert in first + rest] == made[::-1]
    assert (end, rest[0].acknowledged_at is not None, first[0].detail) == (None, True, {"n": 2})
    newest = last_alert(db, DEFAULT_TENANT, "crash")
    assert newest is not None
    assert newest.id == made[2]
