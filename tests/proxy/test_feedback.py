"""``/v1/feedback`` commits before it answers, and says exactly what is wrong otherwise."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from proxy.errors import ApiError
from proxy.feedback import FeedbackEndpoints, FeedbackWriter, parse_signals
from store.clock import ManualClock
from store.config import Config
from store.database import Database
from store.responses import insert_records
from tests.store.test_segments import record

pytestmark = pytest.mark.usefixtures("db")


def no_own_id(tenant_id: str, upstream_id: str) -> None:
    """Remember nothing: what is known stands in the records."""


@pytest.fixture
def endpoints(config: Config) -> Iterator[FeedbackEndpoints]:
    writer = FeedbackWriter(config)
    writer.start()
    yield FeedbackEndpoints(config.feedback, writer, ManualClock(datetime(2026, 11, 21, tzinfo=UTC)), no_own_id)
    writer.stop()


def post(endpoints: FeedbackEndpoints, body: Any, tenant_id: str = "default") -> Any:
    status, answer = asyncio.run(endpoints.add(tenant_id, json.dumps(body).encode()))
    assert status == 201
    return json.loads(answer)


def n_signals(db: Database) -> int:
    return int(db.value("SELECT count(*) FROM response_feedback"))


def test_a_signal_is_in_the_database_when_it_is_answered(endpoints: FeedbackEndpoints, db: Database) -> None:
    insert_records(db, [record(1, upstream_id="chatcmpl-123")])
    answer = post(endpoints, {"response_id": "chatcmpl-123", "signal": "thumbs_up", "user": "u", "metadata": {"a": 1}})
    assert n_signals(db) == 1
    assert answer == {"id": answer["id"], "response_id": "chatcmpl-123", "signal": "thumbs_up", "weight": 1.0}


def test_a_list_is_answered_with_a_list_and_written_whole_or_not_at_all(
    endpoints: FeedbackEndpoints, db: Database, config: Config
) -> None:
    insert_records(db, [record(1)])
    good = {"response_id": "resp_000001", "signal": "copy"}
    assert [item["weight"] for item in post(endpoints, [good, {**good, "signal": "thumbs_down"}])] == [0.3, -1.0]
    with pytest.raises(ApiError) as raised:
        post(endpoints, [{**good, "user": "v"}, {**good, "response_id": "nope"}])
    assert (raised.value.status, raised.value.param) == (404, "[1].response_id")
    assert n_signals(db) == 2


def test_a_late_record_is_waited_for(endpoints: FeedbackEndpoints, db: Database) -> None:
    async def both() -> tuple[int, bytes]:
        body = b'{"response_id": "resp_000001", "signal": "copy"}'
        waiting = asyncio.create_task(endpoints.add("default", body))
        await asyncio.sleep(0.1)
        insert_records(db, [record(1)])
        return await waiting

    assert asyncio.run(both())[0] == 201


def test_many_signals_at_once_are_all_written(endpoints: FeedbackEndpoints, db: Database) -> None:
    insert_records(db, [record(1)])

    async def all_at_once() -> list[tuple[int, bytes]]:
        bodies = [json.dumps({"response_id": "resp_000001", "signal": "copy", "user": f"u{i}"}) for i in range(300)]
        return await asyncio.gather(*[endpoints.add("default", body.encode()) for body in bodies])

    assert {status for status, _ in asyncio.run(all_at_once())} == {201}
    assert n_signals(db) == 300


def test_a_signal_is_taken_back(endpoints: FeedbackEndpoints, db: Database) -> None:
    insert_records(db, [record(1)])
    answer = post(endpoints, {"response_id": "resp_000001", "signal": "copy"})
    status, body = asyncio.run(endpoints.withdraw("default", answer["id"]))
    assert (status, json.loads(body)) == (200, {"id": answer["id"], "deleted": True})
    assert n_signals(db) == 0
    with pytest.raises(ApiError) as raised:
        asyncio.run(endpoints.withdraw("default", answer["id"]))
    assert raised.value.status == 404


def test_a_missing_or_locked_database_is_a_503_that_may_be_tried_again(
    endpoints: FeedbackEndpoints, db: Database
) -> None:
    insert_records(db, [record(1)])
    signal = {"response_id": "resp_000001", "signal": "copy"}
    with db.transaction(), pytest.raises(ApiError) as locked:
        post(endpoints, signal)
    assert post(endpoints, signal)
    db.path.unlink()
    with pytest.raises(ApiError) as missing:
        post(endpoints, signal)
    for error in (locked.value, missing.value):
        assert error.status == 503
        assert (b"retry-after", b"1") in error.headers


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{", None),
        (b"5", None),
        (b"[]", None),
        (b"[5]", "[0]"),
        ({}, "signal"),
        ({"signal": "copy"}, "response_id"),
        ({"signal": "copy", "response_id": ""}, "response_id"),
        ({"signal": "copy", "response_id": 5}, "response_id"),
        ({"signal": "like", "response_id": "r"}, "signal"),
        ({"signal": ["copy"], "response_id": "r"}, "signal"),
        ({"signal": "copy", "response_id": "r", "user": 42}, "user"),
        ({"signal": "copy", "response_id": "r", "value": "60"}, "value"),
        ({"signal": "copy", "response_id": "r", "value": True}, "value"),
        ({"signal": "copy", "response_id": "r", "value": 10**400}, "value"),
        ({"signal": "dwell_time", "response_id": "r", "value": float("nan")}, "value"),
        (b'{"signal": "dwell_time", "response_id": "r", "value": 1e999}', "value"),
        ({"signal": "dwell_time", "response_id": "r", "value": -1}, "value"),
        ({"signal": "copy", "response_id": "r", "comment": "x" * 20_000}, "comment"),
        ({"signal": "copy", "response_id": "r", "correction": {}}, "correction"),
        ({"signal": "copy", "response_id": "r", "metadata": []}, "metadata"),
        ({"signal": "copy", "response_id": "r", "id": 1}, "id"),
        ([{"signal": "copy", "response_id": "r"}, {"signal": "x", "response_id": "r"}], "[1].signal"),
        ([{"signal": "copy", "response_id": "r"}] * 1001, None),
    ],
)
def test_bad_input_is_a_400_that_names_the_field(config: Config, body: Any, param: str | None) -> None:
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(ApiError) as raised:
        parse_signals(encoded, config.feedback)
    assert (raised.value.status, raised.value.param) == (400, param)


def test_texts_with_lone_surrogates_are_taken(config: Config) -> None:
    ((signal,), is_list) = parse_signals(
        rb'{"signal": "copy", "response_id": "r", "comment": "cut \ud83d", "user": null}', config.feedback
    )
    assert (signal.comment, signal.user, is_list) == ("cut \ufffd", "", False)
