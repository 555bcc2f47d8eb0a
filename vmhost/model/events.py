"""What happens while a plan runs, as values that any face may show."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepStarted:
    """Step ``number`` of ``total`` begins; ``why`` says what it does."""

    number: int
    total: int
    subject: str
    why: str


@dataclass(frozen=True, slots=True)
class StepDone:
    """Step ``number`` of ``total`` ended well after ``seconds``."""

    number: int
    total: int
    subject: str
    why: str
    seconds: float


@dataclass(frozen=True, slots=True)
class StepFailed:
    """Step ``number`` of ``total`` failed; ``error`` is its message."""

    number: int
    total: int
    subject: str
    why: str
    error: str


@dataclass(frozen=True, slots=True)
class Undone:
    """A step was undone; ``error`` is empty, or why the undo failed."""

    subject: str
    why: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A guest is awaited; ``seen`` is the last thing seen of it."""

    subject: str
    seen: str


@dataclass(frozen=True, slots=True)
class Progress:
    """A long operation moves: ``done`` of ``total`` units (``total`` 0: unknown), at ``rate`` units a second."""

    subject: str
    text: str
    done: float = 0
    total: float = 0
    rate: float = 0


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that the person should know."""

    subject: str
    text: str


Event = StepStarted | StepDone | StepFailed | Undone | Waiting | Progress | Notice
