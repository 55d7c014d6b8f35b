"""One request of a person to the console."""

from collections.abc import Mapping
from dataclasses import dataclass

from learner.api_request import one_of
from learner.console.session import Session
from learner.services import Services
from store.database import Database


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of a person: who, what for, and the form's fields."""

    services: Services
    db: Database
    session: Session
    path: Mapping[str, str]
    query: Mapping[str, str]
    form: Mapping[str, str]

    @property
    def tenant_id(self) -> str:
        return self.session.principal.tenant_id

    @property
    def actor(self) -> str:
        return self.session.principal.actor

    @property
    def now_s(self) -> float:
        return self.services.clock.now_s()

    def choice(self, field: str, choices: tuple[str, ...]) -> str | None:
        return one_of(field, self.query.get(field) or None, choices)
