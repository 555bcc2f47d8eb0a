"""How a guest is protected: when it gets points and drills, and what of them is kept."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from vmhost.model.calendar import parse_calendar
from vmhost.model.retention import Keep
from vmhost.model.spec.base import Age, Count, Line, Model, Seconds


def _calendar(text: str) -> str:
    return parse_calendar(text).text


Moments = Annotated[str, Field(max_length=256), AfterValidator(_calendar)]
"""A calendar event as systemd writes it: ``Mon..Fri 22:00``."""
Several = Annotated[Count, Field(ge=0, le=10_000)]


class KeepSpec(Model):
    """Which points stay; one that no rule keeps goes at the next prune."""

    last: Several = Field(default=0, description="That many of the newest.")
    hourly: Several = Field(default=0, description="The newest of each of that many hours that have any.")
    daily: Several = Field(default=0, description="The newest of each of that many days.")
    weekly: Several = Field(default=0, description="The newest of each of that many weeks, Monday to Sunday.")
    monthly: Several = Field(default=0, description="The newest of each of that many months.")
    yearly: Several = Field(default=0, description="The newest of each of that many years.")

    within: Age | None = Field(default=None, description="All that were taken no longer than that before the newest.")

    @property
    def rules(self) -> Keep:
        """The same for retention."""
        counted = (self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly)
        return Keep(*counted, within=self.within or 0.0)


class DrillSpec(Model):
    """When a guest is drilled, and how a drill sees that it is there, beside what ``ready`` says."""

    every: Age | None = Field(default=None, description="A drill is due when the last one is so old.")
    says: Line | None = Field(default=None, description="Words that its serial console says once it is there.")


class ScheduleSpec(Model):
    """When a guest gets what, where how old the last one is does not say it."""

    points: Moments | None = Field(default=None, description="Points are due then; instead of ``every``.")
    full: Moments | None = Field(default=None, description="Full ones are due then; instead of ``full``.")
    drill: Moments | None = Field(default=None, description="Drills are due then; instead of ``drill: {every: ...}``.")


class BackupSpec(Model):
    """A guest's backups."""

    keep: KeepSpec = Field(default=KeepSpec(), description="Which points stay; without it all of them.")
    every: Age | None = Field(
        default=None, description="A point is due when the newest is so old; without it every time."
    )
    full: Age | None = Field(
        default=None, description="A full one is due when the newest full one is so old; without it when one has to be."
    )
    schedule: ScheduleSpec = Field(default=ScheduleSpec(), description="When what is due, by the calendar.")
    rpo: Age | None = Field(
        default=None, description="The objective: its newest point is never older; without it nightly status --rpo."
    )
    rto: Seconds | None = Field(default=None, description="The objective: a drill brings it back in no more than that.")
    verified: Age | None = Field(
        default=None, description="The objective: a point of it was found whole no longer ago than that."
    )
    drill: DrillSpec = Field(default=DrillSpec(), description="When it is drilled, and how that sees that it is there.")

    @model_serializer(mode="wrap")
    def _said(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out a schedule that says nothing: an older vmhost, which knows none, then reads what was applied."""
        found: dict[str, Any] = dump(self)
        if found.get("schedule") == {}:
            del found["schedule"]
        return found

    @model_validator(mode="after")
    def _said_once(self) -> BackupSpec:
        told = (
            ("every", self.every, "points", self.schedule.points),
            ("full", self.full, "full", self.schedule.full),
            ("drill.every", self.drill.every, "drill", self.schedule.drill),
        )
        for age, seconds, name, moments in told:
            if seconds is not None and moments is not None:
                raise ValueError(f"{age} and schedule.{name} say the same thing twice: write one of them")
        return self
