"""A reply's id of its upstream leads to the conversation that it belongs to."""

from typing import Any

from store.clock import iso
from store.database import Database
from store.records import ResponseRecord
from store.responses import OpeningFacts, find_reply, insert_records
from store.tenants import ensure_tenant
from tests.conftest import NOW_S


def record(number: int, **fields: Any) -> ResponseRecord:
    values: dict[str, Any] = {
        "id": f"resp_{number}",
        "tenant_id": "default",
        "conversation_id": f"conv_{number}",
        "upstream_id": "up_1",
        "endpoint": "/v1/responses",
        "question_type": "refund",
        "data_source": "crm",
        "prompt_template": "template",
        "segment": "gold",
        "outcome": "ok",
        "status": 200,
        "latency_ms": 1.0,
        "created_at": iso(NOW_S + number),
        "completed_at": iso(NOW_S + number),
    }
    return ResponseRecord(**(values | fields))


def test_the_newest_response_with_an_upstreams_id_names_the_conversation_and_its_first_facts(db: Database) -> None:
    insert_records(db, [record(1), record(2), record(3, conversation_id="conv_2", question_type="other")])
    assert find_reply(db, "default", "up_1") == OpeningFacts("conv_2", "refund", "crm", "template", "gold")
    assert find_reply(db, "default", "up_2") is None


def test_another_tenants_reply_is_unknown(db: Database) -> None:
    ensure_tenant(db, "other", NOW_S)
    insert_records(db, [record(1)])
    assert find_reply(db, "other", "up_1") is None
