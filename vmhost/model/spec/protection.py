"""How a guest is protected: what of its backups is kept."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vmhost.model.retention import Keep
from vmhost.model.spec.base import Age, Count, Line, Model, Seconds

Several = Annotated[Count, Field(ge=0, le=10_000)]


class KeepSpec(Model):
    """Which points stay; one that no rule keeps goes at the next prune."""

    last: Several = Field(default=0, description="That many of the newest.")
    hourly: Several = Field(default=0, description="The newest of each of that many hours that have any.")
    daily: Several = Field(default=0, description="The newest of each of that many days.")
    weekly: Several = Field(default=0, description="The newest of each of that many weeks, Monday to Sunday.")
    monthly: Several = Field(default=0, description="The newest of each of that many months.")
    yearly: Several = Field(default=0, description="The newest of each of that many years.")

    @property
    def rules(self) -> Keep:
        """The same for retention."""
        return Keep(self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly)


class DrillSpec(Model):
    """When a guest is drilled, and how a drill sees that it is there, beside what ``ready`` says."""

    every: Age | None = Field(default=None, description="A drill is due when the last one is so old.")
    says: Line | None = Field(default=None, description="Words that its serial console says once it is there.")


class BackupSpec(Model):
    """A guest's backups."""

    keep: KeepSpec = Field(default=KeepSpec(), description="Which points stay; without it all of them.")
    every: Age | None = Field(
        default=None, description="A point is due when the newest is so old; without it every time."
    )
    full: Age | None = Field(
        default=None, description="A full one is due when the newest full one is so old; without it when one has to be."
    )
    rpo: Age | None = Field(
        default=None, description="The objective: its newest point is never older; without it nightly status --rpo."
    )
    rto: Seconds | None = Field(default=None, description="The objective: a drill brings it back in no more than that.")
    verified: Age | None = Field(
        default=None, description="The objective: a point of it was found whole no longer ago than that."
    )
    drill: DrillSpec = Field(default=DrillSpec(), description="When it is drilled, and how that sees that it is there.")
