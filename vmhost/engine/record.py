"""The journal of one operation: what is written before and after every step, and how it is read back."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from vmhost.model.errors import DamagedData
from vmhost.model.plan import Plan
from vmhost.model.snapsteps import Freeze, Thaw
from vmhost.ports import JournalWriter, OpenJournal

_PLAN: TypeAdapter[Plan] = TypeAdapter(Plan)


class Record:
    """Writes one operation's journal; safe from several threads. Steps are numbered through, from 0, ``after``
    included.
    """

    def __init__(self, writer: JournalWriter) -> None:
        self._writer = writer
        self._lock = threading.Lock()

    def begin(self, operation: str, plan: Plan, *, user: str, time: float) -> None:
        """Write down the whole plan. Not waited for: nothing is done yet, and the first intent takes it to the disk."""
        first = {"type": "begin", "operation": operation, "user": user, "time": time, "plan": plan_to_json(plan)}
        self._append(first, durable=False)

    def intent(self, *numbers: int, durable: bool = True) -> None:
        """These steps are about to be done, side by side; the disk is waited for once.

        :param durable: False: not even once, since a power cut would take what they do along with the record.
        """
        for number in numbers:
            self._append({"type": "intent", "step": number}, durable=durable and number == numbers[-1])

    def done(self, number: int) -> None:
        """The step was done. Not waited for: whoever does not read it does or undoes the step again, which is harmless,
        and the next record takes it to the disk.
        """
        self._append({"type": "done", "step": number}, durable=False)

    def failed(self, number: int, *, theirs: bool) -> None:
        """The step failed; ``theirs``: because the thing was there before us, so that it must not be undone."""
        self._append({"type": "failed", "step": number, "theirs": theirs})

    def undone(self, number: int) -> None:
        """The step was undone."""
        self._append({"type": "undone", "step": number})

    def committed(self, *, durable: bool = True) -> None:
        """All steps were done; from here nothing is undone.

        :param durable: False: nothing comes after, and the journal is closed at once, which waits for the disk.
        """
        self._append({"type": "committed"}, durable=durable)

    def close(self, *, done: bool) -> None:
        """End the operation; with ``done`` False the journal stays for ``vmhost recover``."""
        self._writer.close(done=done)

    def _append(self, record: Mapping[str, Any], *, durable: bool = True) -> None:
        with self._lock:
            self._writer.append(record, durable=durable)


@dataclass(frozen=True, slots=True)
class Past:
    """What a journal tells of an operation whose owner died."""

    operation: str
    plan: Plan
    committed: bool
    to_undo: tuple[int, ...]
    to_finish: tuple[int, ...]


def read_past(journal: OpenJournal) -> Past | None:
    """Return what a journal tells, or None when its operation had not begun to do anything.

    ``to_undo`` are the steps that may have had an effect and were not undone, the last one first; ``to_finish`` those
    after the commit point that were not done.

    :raises DamagedData: the journal makes no sense.
    """
    if not journal.records:
        return None
    first, *rest = journal.records
    try:
        plan = plan_from_json(first["plan"])
        marks = {kind: {item["step"] for item in rest if item["type"] == kind} for kind in ("intent", "done", "undone")}
        theirs = {item["step"] for item in rest if item["type"] == "failed" and item["theirs"]}
    except (KeyError, TypeError, ValidationError) as error:
        raise DamagedData(
            f"the journal cannot be read: {error}", subject=journal.id, hint=f"vmhost job show {journal.id}"
        ) from error
    touched = marks["intent"] - marks["undone"] - theirs - _thawed(plan, marks["done"])
    count = len(plan.steps)
    return Past(
        operation=str(first.get("operation", "")),
        plan=plan,
        committed=any(item["type"] == "committed" for item in rest),
        to_undo=tuple(sorted((number for number in touched if number < count), reverse=True)),
        to_finish=tuple(number for number in range(count, count + len(plan.after)) if number not in marks["done"]),
    )


def _thawed(plan: Plan, done: set[int]) -> set[int]:
    """Return the steps that froze a guest which the plan itself has thawed since: nothing of them is left to undo."""
    own = [plan.steps[number].do for number in done if number < len(plan.steps)]
    thawed = {step.uuid for step in own if isinstance(step, Thaw)}
    return {number for number, item in enumerate(plan.steps) if isinstance(item.do, Freeze) and item.do.uuid in thawed}


def plan_to_json(plan: Plan) -> Any:
    """Return a plan as JSON values."""
    return _PLAN.dump_python(plan, mode="json")


def plan_from_json(value: Any) -> Plan:
    """Return the plan that JSON values describe. :raises ValidationError: they describe none."""
    return _PLAN.validate_python(value)
