"""What admin, reviewer and viewer keys may do, over HTTP: API and console."""

import dataclasses
import re
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from learner.api import ROUTES
from learner.api_export import PATH as EXPORT_PATH
from learner.authoring import Author
from learner.console.pages import ACTIONS
from learner.rights import ROLES, Role
from store.audit import list_audit
from store.clock import ManualClock
from store.config import Config, TenancySection
from store.database import Database
from store.datasets import ensure_dataset
from store.tenants import create_key, ensure_tenant
from store.vocabulary import Scope
from tests.conftest import NOW_S
from tests.learner.api import client_of, error_of
from tests.learner.test_console import fill, token

REVIEWS = {
    ("PATCH", "/api/training/examples/{id}"),
    ("POST", "/api/contexts"),
    ("POST", "/api/contexts/bulk"),
    ("POST", "/api/contradictions/{id}/resolve"),
    ("PATCH", "/api/contexts/{id}"),
    ("POST", "/api/contexts/{id}/approve"),
    ("POST", "/api/contexts/{id}/reject"),
}
REVIEWED = ("/api/contexts", "/api/contradictions", "/api/training/examples/")  # new routes there, too
PAGE_REVIEWS = ("/contexts", "/contradictions", "/examples/")
CHANGES = [(method, path) for path, method, _, _ in ROUTES if method != "GET"]


@pytest.fixture
def keyed(config: Config, db: Database, clock: ManualClock, author: Author) -> Iterator[TestClient]:
    with client_of(dataclasses.replace(config, tenancy=TenancySection(mode="keys")), clock, author) as client:
        yield client


def key_of(db: Database, role: Role) -> str:
    ensure_tenant(db, "acme", NOW_S)
    return create_key(db, "acme", name=role, scope=role, now_s=NOW_S)[1]


def sign_in(client: TestClient, db: Database, role: Role) -> None:
    answer = client.post("/login", data={"key": key_of(db, role)})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


def concrete(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "x", path)


def test_what_reviewers_decide_about_is_there() -> None:
    assert set(CHANGES) > REVIEWS
    assert all(path.startswith(REVIEWED) for _, path in REVIEWS)


@pytest.mark.parametrize("role", ROLES)
def test_everybody_with_a_role_reads_the_api(keyed: TestClient, db: Database, role: Role) -> None:
    headers = {"x-api-key": key_of(db, role)}
    reads = [concrete(path) for path, method, *_ in ROUTES if method == "GET"]
    statuses = {path: keyed.get(path, headers=headers).status_code for path in reads}
    assert [path for path, status in statuses.items() if status in (401, 403) or status >= 500] == []


@pytest.mark.parametrize("role", ROLES)
def test_only_an_admin_takes_a_dataset_out_with_personal_data_in_it(
    keyed: TestClient, db: Database, role: Role
) -> None:
    headers = {"x-api-key": key_of(db, role)}
    ensure_dataset(db, "acme", "ds", NOW_S)
    path = EXPORT_PATH.replace("{id}", "ds")

    answers = [keyed.get(path, params={"raw": raw}, headers=headers) for raw in ("false", "true")]

    assert [answer.status_code for answer in answers] == [200, 200 if role == "admin" else 403]
    taken = [entry.detail["raw"] for entry in list_audit(db, "acme")[0] if entry.action == "datasets.export"]
    assert sorted(taken) == ([False, True] if role == "admin" else [False])


@pytest.mark.parametrize("scope", ["app", "feedback"])
def test_a_key_that_opens_no_page_takes_no_dataset_out(keyed: TestClient, db: Database, scope: Scope) -> None:
    ensure_tenant(db, "acme", NOW_S)
    ensure_dataset(db, "acme", "ds", NOW_S)
    _, key = create_key(db, "acme", name=scope, scope=scope, now_s=NOW_S)
    answer = keyed.get(EXPORT_PATH.replace("{id}", "ds"), headers={"x-api-key": key})
    assert (answer.status_code, error_of(answer)["code"]) == (403, "wrong_scope")


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_a_key_changes_by_the_api_what_its_role_may(
    keyed: TestClient, db: Database, role: Role, method: str, path: str
) -> None:
    answer = keyed.request(method, concrete(path), headers={"x-api-key": key_of(db, role)})

    may = role == "admin" or (role == "reviewer" and path.startswith(REVIEWED))
    assert (answer.status_code == 403) is not may
    assert may or (error_of(answer)["code"], error_of(answer)["type"]) == ("missing_right", "permission_error")
    assert may or list_audit(db, "acme")[0] == []


@pytest.mark.parametrize("role", ROLES)
def test_a_session_changes_in_the_console_what_its_role_may(keyed: TestClient, db: Database, role: Role) -> None:
    sign_in(keyed, db, role)
    csrf_token = token(keyed, "/")
    for path, _ in ACTIONS:
        answer = keyed.post(concrete(path), data={"csrf_token": csrf_token})
        may = role == "admin" or (role == "reviewer" and path.startswith(PAGE_REVIEWS))
        assert (answer.status_code == 403) is not may, path


@pytest.mark.parametrize("role", ROLES)
def test_a_page_shows_only_the_forms_that_its_reader_may_send(
    keyed: TestClient, db: Database, config: Config, author: Author, role: Role
) -> None:
    ensure_tenant(db, "acme", NOW_S)
    filled = fill(db, config, author, "acme")
    sign_in(keyed, db, role)
    shown = set()
    for page in (
        "/",
        "/contexts",
        f"/contexts/{filled.context.id}",
        "/patterns",
        f"/patterns/{filled.pattern_id}",
        "/generations",
        "/generations/1",
        "/alerts",
        "/datasets/ds-auto-training",
    ):
        answer = keyed.get(page)
        assert answer.status_code == 200, page
        shown |= set(re.findall(r'method="post" action="(/[^"/]*)', answer.text))

    reviews, all_else = {"/contexts", "/examples"}, {"/patterns", "/alerts"}
    wanted = {"admin": reviews | all_else, "reviewer": reviews, "viewer": set[str]()}[role]
    assert shown - {"/logout"} == wanted


def test_a_viewer_whose_form_is_refused_is_told_what_it_takes(keyed: TestClient, db: Database) -> None:
    sign_in(keyed, db, "viewer")
    answer = keyed.post("/contexts/x/approve", data={"csrf_token": token(keyed, "/")})
    assert "a viewer key may not do this; it takes an admin or reviewer key" in answer.text


def test_signing_in_and_out_is_in_the_audit_log(keyed: TestClient, db: Database) -> None:
    sign_in(keyed, db, "viewer")
    keyed.post("/logout", data={"csrf_token": token(keyed, "/")})
    entries = list_audit(db, "acme")[0]
    assert {entry.action for entry in entries} == {"console.sign_in", "console.sign_out"}
    assert [entry.detail for entry in entries] == [{"role": "viewer"}, {"role": "viewer"}]


def test_tries_to_sign_in_are_limited_until_a_while_has_passed(
    keyed: TestClient, db: Database, config: Config, clock: ManualClock
) -> None:
    key = key_of(db, "admin")
    for _ in range(config.learner.sign_in_attempts):
        assert keyed.post("/login", data={"key": "tut-guessed"}).status_code == 401

    answer = keyed.post("/login", data={"key": key})

    assert (answer.status_code, answer.headers["retry-after"]) == (429, "900")
    assert "try again in 15 minutes" in answer.text
    clock.advance(config.learner.sign_in_window_s)
    assert keyed.post("/login", data={"key": key}).status_code == 303


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_page_of_another_site_signs_nobody_in(keyed: TestClient, db: Database, site: str) -> None:
    fields = {"key": key_of(db, "admin")}
    assert keyed.post("/login", data=fields, headers={"sec-fetch-site": site}).status_code == 403
    assert "set-cookie" not in keyed.post("/login", data=fields, headers={"sec-fetch-site": site}).headers
    assert keyed.post("/login", data=fields, headers={"sec-fetch-site": "same-origin"}).status_code == 303


@pytest.mark.parametrize("path", ["/", "/login", "/console.css", "/nothing"])
def test_every_answer_says_what_a_browser_may_do_with_it(keyed: TestClient, path: str) -> None:
    headers = keyed.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "same-origin"
    policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
    assert policy == {
        "default-src": "'none'",
        "style-src": "'self'",
        "img-src": "'self'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
    }
