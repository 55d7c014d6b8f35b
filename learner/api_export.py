"""``GET /api/training/datasets/{id}/export``: a dataset as a file, sent while it is read."""

from collections.abc import Callable, Iterator
from typing import get_args

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from learner.access import check_browser, check_right, principal_of_key
from learner.api_errors import bad_field
from learner.api_request import one_of
from learner.dataset_export import MEDIA_TYPES, begin_export, export
from learner.dataset_formats import Format
from learner.services import Services

PATH = "/api/training/datasets/{id}/export"


def export_route(services: Services) -> Route:
    """Return the route."""

    async def answer(request: Request) -> Response:
        if services.config.tenancy.mode == "open":
            check_browser(request.headers)
        formats: tuple[Format, ...] = get_args(Format)
        kind: Format = one_of("format", request.query_params.get("format") or None, formats) or "jsonl"
        is_raw, with_unreviewed = _flag(request, "raw"), _flag(request, "unreviewed")
        pieces = await run_in_threadpool(_begin, services, request, kind, is_raw)
        media_type, ending = MEDIA_TYPES[kind]
        return StreamingResponse(
            pieces(with_unreviewed),
            media_type=media_type,
            headers={"content-disposition": f'attachment; filename="dataset.{ending}"', "cache-control": "no-store"},
        )

    return Route(PATH, answer, methods=["GET"])


def _begin(services: Services, request: Request, kind: Format, is_raw: bool) -> Callable[[bool], Iterator[bytes]]:
    dataset_id = request.path_params["id"]
    with services.open_database() as db:
        principal = principal_of_key(services, db, request.headers.get("x-api-key"))
        # A raw export leaves with everybody's words at once: as much as a change, although it is read.
        check_right(principal, "manage" if is_raw else "read")
        now_s = services.clock.now_s()
        begin_export(db, principal.tenant_id, dataset_id, kind, is_raw=is_raw, actor=principal.actor, now_s=now_s)

    def pieces(with_unreviewed: bool) -> Iterator[bytes]:
        with services.open_database() as db:
            for piece in export(
                db, principal.tenant_id, dataset_id, kind, is_raw=is_raw, with_unreviewed=with_unreviewed
            ):
                yield piece.encode()

    return pieces


def _flag(request: Request, name: str) -> bool:
    value = request.query_params.get(name, "false")
    if value not in ("true", "false"):
        raise bad_field(name, f"must be true or false, not {value!r}")
    return value == "true"
