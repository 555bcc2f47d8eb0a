"""How a guest is protected: what of its backups is kept."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vmhost.model.retention import Keep
from vmhost.model.spec.base import Count, Line, Model

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
    """How a drill sees that the guest is there, beside what ``ready`` says."""

    says: Line | None = Field(default=None, description="Words that its serial console says once it is there.")


class BackupSpec(Model):
    """A guest's backups."""

    keep: KeepSpec = Field(default=KeepSpec(), description="Which points stay; without it all of them.")
    drill: DrillSpec = Field(default=DrillSpec(), description="How its drills see that it is there.")
