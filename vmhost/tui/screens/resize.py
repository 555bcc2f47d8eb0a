"""The form of other vCPUs and memory for a guest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from vmhost.model.units import format_size
from vmhost.ops.forms import bytes_of, faults_of_size
from vmhost.tui import changes
from vmhost.tui.screens.form import Field, FormScreen

if TYPE_CHECKING:
    from vmhost.model.observed import Observed, ObservedDomain
    from vmhost.model.plan import Plan


class ResizeScreen(FormScreen):
    """Other vCPUs and memory."""

    def __init__(self, domain: ObservedDomain, observed: Observed) -> None:
        super().__init__()
        self._domain = domain
        self._observed = observed

    def title_of_place(self) -> str:
        return f"resize {self._domain.name}"

    def fields(self) -> Sequence[Field]:
        facts = self._domain.facts
        return (
            Field(
                "cpus", "vCPUs", str(facts.vcpus), f"now {facts.vcpus}; the host has {self._observed.host.cpus} CPUs"
            ),
            Field("memory", "memory", format_size(facts.memory), f"now {format_size(facts.memory)}"),
        )

    def faults(self) -> dict[str, str]:
        return faults_of_size(self.value("cpus"), self.value("memory"))

    def trial(self) -> Callable[[], Plan]:
        host, name = self.vmhost.host, self._domain.name
        cpus, memory = int(self.value("cpus")), bytes_of(self.value("memory"))
        return lambda: host.plan_resize(name, cpus=cpus, memory=memory).plan

    def change(self) -> changes.Change | None:
        memory = bytes_of(self.value("memory"))
        if memory is None:
            return None
        return changes.resize(self._domain.name, int(self.value("cpus")), memory, self.value("memory"))
