"""Two learner processes on one database: each job is done once, and one that is killed in work is taken over."""

import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from store.clock import SystemClock
from store.config import load_config
from store.database import open_database
from store.jobs import create_job
from store.tenants import ensure_tenant
from tests.flow.conftest import NewProduct
from tests.flow.product import Product, Running, eventually, free_port
from tests.learner.knowledge.test_faults import ANSWERS, right
from tests.learner.model_server import ModelServer, Reply, Request, error_reply

TAKEN_OVER_S = 60.0


def conversations() -> list[dict[str, Any]]:
    return [
        {
            "chatId": f"chat-{number}",
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
                {"role": "user", "content": "Thanks!"},
            ],
            "user": f"user-{number}",
            "resolved": True,
            "tags": [f"topic-{number}"],
        }
        for number, (question, answer) in enumerate(ANSWERS.items())
    ]


def start_learner(product: Product, models_url: str) -> Running:
    product.learner_port = free_port()
    product.write_config()
    text = product.config_path.read_text()
    for stage, model in {"prescreen": "openai/small", "extract": "openai/large"}.items():
        text = text.replace(f'{stage} = ""', f'{stage} = "{model}"')
    product.config_path.write_text(f'{text}api_base = "{models_url}"\n')
    return product.start("learner")


def queue(product: Product) -> str:
    answer = httpx.post(f"{product.learner_url}/api/training/jobs", json={"kind": "knowledge"})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


@pytest.fixture
def product(new_product: NewProduct) -> Product:
    return new_product(
        settings={"learner": {"poll_s": 0.1, "job_lease_s": 3, "job_retry_s": 0.1, "knowledge_interval_h": 1e6}}
    )


def test_a_job_whose_learner_is_killed_in_work_is_taken_over_and_pays_no_answered_call_twice(
    product: Product, tmp_path: Path
) -> None:
    path = tmp_path / "all.jsonl"
    path.write_text("".join(json.dumps(value) + "\n" for value in conversations()))
    asked: list[str] = []
    is_reached, is_killed = threading.Event(), threading.Event()

    def script(request: Request) -> Reply:
        asked.append(request["messages"][1]["content"])
        if len(asked) == 3:  # the pre-screen and one draft are answered
            is_reached.set()
            is_killed.wait(TAKEN_OVER_S)
            return error_reply(500)
        return right(request)

    with ModelServer(script) as server:
        learners = [start_learner(product, server.base_url) for _ in range(2)]
        product.command("import", path)
        job_id = queue(product)
        assert is_reached.wait(TAKEN_OVER_S)
        holder = product.row("SELECT claimed_by FROM training_jobs WHERE id = :id", id=job_id)["claimed_by"]
        (victim,) = [learner for learner in learners if holder.endswith(f":{learner.pid}")]
        victim.kill()
        is_killed.set()
        done = "SELECT * FROM training_jobs WHERE id = :id AND status = 'completed'"
        job = eventually(lambda: product.rows(done, id=job_id), TAKEN_OVER_S)[0]

    assert (job["attempts"], job["claimed_by"] != holder) == (2, True)
    runs = product.rows("SELECT * FROM learning_runs WHERE kind = 'knowledge' ORDER BY id")
    assert [(run["status"], run["error"]) for run in runs] == [("failed", "interrupted"), ("completed", None)]
    assert [run["model_calls"] for run in runs] == [2, len(ANSWERS) - 1]
    assert Counter(asked) - Counter(set(asked)) == Counter([asked[2]])
    found = product.rows("SELECT source_chat_id FROM ai_contexts ORDER BY 1")
    assert [row["source_chat_id"] for row in found] == [f"chat-{number}" for number in range(len(ANSWERS))]


def test_two_learners_share_the_jobs_of_many_tenants_and_do_each_once(product: Product) -> None:
    with ModelServer([]) as server:
        for _ in range(2):
            start_learner(product, server.base_url)
        tenants = [f"tenant-{number}" for number in range(12)]
        config = load_config(None, {"store": {"url": f"sqlite:///{product.database_path}"}})
        now_s = SystemClock().now_s()
        with open_database(config.store) as db:
            for tenant_id in tenants:
                ensure_tenant(db, tenant_id, now_s)
            jobs = [
                create_job(db, tenant_id, kind="knowledge", due_s=now_s, now_s=now_s).id
                for tenant_id in tenants
                for _ in range(2)
            ]
        pending = "SELECT id FROM training_jobs WHERE status IN ('pending', 'processing')"
        eventually(lambda: not product.rows(pending), TAKEN_OVER_S)

    rows = product.rows("SELECT id, tenant_id, status, attempts, run_id FROM training_jobs WHERE kind = 'knowledge'")
    assert {row["id"] for row in rows} == set(jobs)
    assert {(row["status"], row["attempts"]) for row in rows} == {("completed", 1)}
    runs = product.rows("SELECT id, tenant_id FROM learning_runs WHERE kind = 'knowledge'")
    assert {run["id"] for run in runs} == {row["run_id"] for row in rows}
    assert sorted(run["tenant_id"] for run in runs) == sorted(tenants * 2)
