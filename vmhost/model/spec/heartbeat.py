"""Whether a guest still answers: how that is looked at, and what is done when it does not."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vmhost.model.spec.base import Count, Flag, Model, Seconds
from vmhost.model.spec.service import ProbeSpec, RestartSpec


class HeartbeatSpec(Model):
    """Looks of ``vmhost watch`` at a guest as a whole."""

    by: Literal["any", "agent", "ssh"] = Field(
        default="any", description="What is asked; any: the guest agent, and SSH when that is silent."
    )
    interval: Seconds = Field(default=10.0, description="Time between two looks.")
    timeout: Seconds = Field(default=5.0, description="How long an answer may take.")
    misses: Annotated[Count, Field(ge=1, le=1000)] = Field(
        default=3, description="Looks in a row without an answer until it counts as lost."
    )
    start_period: Seconds = Field(
        default=300.0, description="Time after a start in which silence does not count, until the first answer."
    )
    restart: Flag = Field(default=False, description="Restart the guest when it is lost and not protected.")
    shutdown: Seconds = Field(default=30.0, description="How long it may take to shut down before it is powered off.")
    backoff: Seconds = Field(default=60.0, description="Time to the second try; it doubles with each.")
    most: Seconds = Field(default=1800.0, description="The longest time between two tries.")
    tries: Annotated[Count, Field(ge=1, le=1000)] = Field(default=3, description="Tries until it is given up.")
    quiet: Seconds = Field(default=3600.0, description="Answers for that long forget earlier tries.")

    @property
    def probe(self) -> ProbeSpec:
        """The looks as those at a service."""
        return ProbeSpec(
            agent=True,
            interval=self.interval,
            timeout=self.timeout,
            failures=self.misses,
            start_period=self.start_period,
        )

    @property
    def policy(self) -> RestartSpec:
        """What is done, as for a service."""
        return RestartSpec(
            policy="always" if self.restart else "never",
            backoff=self.backoff,
            most=self.most,
            tries=self.tries,
            quiet=self.quiet,
        )
