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


def test_an_old_alert_is_open_until_somebody_acknowledges_it_whatever_came_since(db: Database) -> None:
    old, new = (
        raise_alert(db, DEFAULT_TENANT, kind="crash", message="fell", detail={}, run_id=None, now_s=NOW_S + i)
        for i in range(2)
    )
    acknowledge_alert(db, DEFAULT_TENANT, new, now_s=NOW_S + 9)

    alerts, end = list_alerts(db, DEFAULT_TENANT, is_open=True, limit=1)

    assert ([alert.id for alert in alerts], end) == ([old], None)
