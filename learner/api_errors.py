"""What a client of the admin API sees when something is wrong: a status and the error body, made in one place.

LearnerError
└── ApiError    a request that cannot be answered as asked
"""

from starlette.responses import Response

from learner.errors import LearnerError
from store.errors import ConfigError, ConflictError, InvalidError, NotFoundError, StoreError, UnavailableError
from store.rows import encode


class ApiError(LearnerError):
    """A request that cannot be answered as asked; *message* goes to the client as it stands."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code


def bad_field(field: str, message: str) -> ApiError:
    """Return the error for a field that holds what it may not."""
    return ApiError(400, f"{field}: {message}", param=field, code="invalid_value")


def from_store(exc: StoreError) -> ApiError:
    """Return what a client sees of an error of the store."""
    if isinstance(exc, InvalidError):
        return ApiError(400, str(exc), param=exc.field or None, code="invalid_value")
    if isinstance(exc, NotFoundError):
        return ApiError(404, str(exc), code="not_found")
    if isinstance(exc, ConflictError):
        return ApiError(409, str(exc), code="conflict")
    if isinstance(exc, UnavailableError):
        return ApiError(503, "the database cannot be used at the moment", code="database_unavailable")
    if isinstance(exc, ConfigError):
        return ApiError(500, str(exc), code="configuration")
    return ApiError(500, "internal error", code="internal_error")


def json_response(value: object, status: int = 200) -> Response:
    """Return *value* as a JSON answer, which browsers neither keep nor take for anything else."""
    headers = {"x-content-type-options": "nosniff", "cache-control": "no-store"}
    return Response(encode(value), status_code=status, media_type="application/json", headers=headers)


def error_response(exc: ApiError) -> Response:
    """Return the answer for *exc*, in the shape that OpenAI's API has too."""
    kind = "server_error" if exc.status >= 500 else "invalid_request_error"
    if exc.status in (401, 403):
        kind = "authentication_error" if exc.status == 401 else "permission_error"
    return json_response(
        {"error": {"message": exc.message, "type": kind, "param": exc.param, "code": exc.code}}, exc.status
    )
