"""What each kind of key may do on the learner's port, API and console alike; pure.

Everybody with one of these keys reads all of the tenant's pages, and takes datasets out with personal data replaced. A
reviewer decides about knowledge and examples, too. All else (patterns, generations, jobs, alerts, forgetting, ingest,
texts taken out as they are) takes an admin key: what is not named here is denied.
"""

from typing import Final, Literal, get_args

from store.vocabulary import Scope

Role = Literal["admin", "reviewer", "viewer"]  # the scopes of keys that open the learner's port
Right = Literal["read", "review", "manage"]

ROLES: Final[tuple[Role, ...]] = get_args(Role)
RIGHTS: Final[dict[Role, frozenset[Right]]] = {
    "admin": frozenset({"read", "review", "manage"}),
    "reviewer": frozenset({"read", "review"}),
    "viewer": frozenset({"read"}),
}
REVIEWED: Final = (  # beginnings of the paths at which knowledge and examples are decided about
    "/contexts",
    "/contradictions",
    "/examples/",
    "/api/contexts",
    "/api/contradictions",
    "/api/training/examples/",
)
OWN: Final = ("/logout",)  # what everybody does for themselves


def role_of(scope: Scope) -> Role | None:
    """Return the role of a key's *scope*, None when it does not open the learner's port."""
    return scope if scope in ROLES else None


def needed_right(method: str, path: str) -> Right:
    """Return the right that a request takes.

    >>> needed_right("GET", "/patterns"), needed_right("POST", "/contexts/1/approve"), needed_right("POST", "/patterns")
    ('read', 'review', 'manage')
    """
    if method in ("GET", "HEAD") or path in OWN:
        return "read"
    return "review" if path.startswith(REVIEWED) else "manage"


def may(role: Role, right: Right) -> bool:
    """Return whether *role* has *right*."""
    return right in RIGHTS[role]
