"""What a check found."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; ``todo`` says what to do, '' when there is nothing."""

    name: str
    level: Level
    said: str
    todo: str = ""


def ok(name: str, said: str) -> Finding:
    return Finding(name, "ok", said)


def warn(name: str, said: str, todo: str) -> Finding:
    return Finding(name, "warn", said, todo)


def fail(name: str, said: str, todo: str) -> Finding:
    return Finding(name, "fail", said, todo)
