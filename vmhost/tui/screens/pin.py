"""The form of other pCPUs for a guest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from vmhost.ops.formhelp import POLICIES, THREADS, PinRead, PinWish, policy_of, read_pins
from vmhost.tui import changes
from vmhost.tui.screens.form import Field, FormScreen

if TYPE_CHECKING:
    from vmhost.model.domains import ObservedDomain
    from vmhost.model.plan import Plan


class PinScreen(FormScreen):
    """How a guest gets pCPUs."""

    def __init__(self, domain: ObservedDomain) -> None:
        super().__init__()
        self._domain = domain

    def title_of_place(self) -> str:
        return f"pin {self._domain.name}"

    def fields(self) -> Sequence[Field]:
        count = self._domain.facts.vcpus
        policy, own = policy_of(self._domain)
        now = f"; now {own}" if own else ""
        return (
            Field("policy", "policy", policy, ", ".join(POLICIES), POLICIES),
            Field("pins", "pins", "", f"vCPU=pCPU, as 0=4 1=6; it has {count} vCPUs; empty: vmhost chooses"),
            Field("dedicated", "dedicated", "", f"of a mixed guest: vCPUs with pCPUs of their own, as 0-1{now}"),
            Field("threads", "threads", "", f"the other threads of its cores: {', '.join(THREADS)}", THREADS),
            Field("limit", "limit", "", "pCPUs that the whole guest may use at most, as 1.5"),
        )

    def _read(self) -> PinRead:
        wish = PinWish(*(self.value(name) for name in ("policy", "pins", "dedicated", "threads", "limit")))
        return read_pins(wish, self._domain)

    def faults(self) -> dict[str, str]:
        return dict(self._read().faults)

    def trial(self) -> Callable[[], Plan]:
        host, name = self.vmhost.host, self._domain.name
        cpus = self._read().cpus
        return lambda: host.plan_pin(name, **cpus).plan

    def change(self) -> changes.Change:
        read = self._read()
        return changes.pin(self._domain.name, read.cpus, read.flags)
