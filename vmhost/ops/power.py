"""Starting and stopping guests: one small plan for each, many side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Literal

from vmhost.engine.observe import observe
from vmhost.engine.together import side_by_side
from vmhost.model.errors import (
    ApplyError,
    GuestError,
    Protected,
    VmhostError,
)
from vmhost.model.events import Event
from vmhost.model.observed import Observed, ObservedDomain
from vmhost.model.plan import Change, Note, Plan, Planned
from vmhost.model.spec import HostSpec
from vmhost.model.steps import DiscardManagedSave, PowerOff, SetAutostart, ShutDown, StartDomain, Step
from vmhost.ops import outcomes
from vmhost.ops.apply import apply_proposal
from vmhost.ops.hostfile import host_spec
from vmhost.ops.proposals import Proposal
from vmhost.plan.admission import against_start
from vmhost.plan.found import UNPROTECT, find, find_ours
from vmhost.plan.overlays import refuse_out_of_sight
from vmhost.plan.request import raise_all
from vmhost.plan.tuning import check_start
from vmhost.ports import Ports
from vmhost.render.parse.tuning import parse_tuning

Action = Literal["start", "stop", "restart", "power-off", "autostart", "no-autostart"]
AT_ONCE = 8
STARTS: Final = ("start", "restart")


@dataclass(frozen=True, slots=True)
class PowerResult:
    """What became of one guest: ``error`` None means that it went well, ``text`` says what was done."""

    name: str
    text: str
    error: VmhostError | None = field(default=None, compare=False)


def plan_power(name: str, action: Action, observed: Observed, *, timeout: float, discard_saved: bool) -> Plan:
    """Return the plan of one action on one guest; an empty one, with a note why, when there is nothing to do.

    :raises NotFound: no such guest; :raises Refused: it is foreign, or its next start would go without what it wrote;
        :raises Protected: it is protected, and would be powered off or lose its saved memory.
    """
    domain = find_ours(name, observed)
    off = action == "power-off" and domain.active
    discards = action == "start" and discard_saved and domain.raw.managed_save
    if (off or discards) and domain.metadata and domain.metadata.protect:
        instead = f"vmhost guest stop {domain.name}" if off else f"vmhost guest start {domain.name}"
        hint = f"{instead}, or {UNPROTECT}"
        raise Protected("it is protected", subject=name, hint=hint)
    if domain.active and action in ("stop", "power-off", "restart"):
        refuse_out_of_sight(domain, observed.pools)
    planned, text = _steps(domain, action, timeout, discard_saved)
    if any(isinstance(item.do, StartDomain) for item in planned) and (discards or not domain.raw.managed_save):
        planned += check_start(domain.uuid, domain.name, parse_tuning(domain.raw.xml), observed)
    site = domain.metadata.site if domain.metadata else ""
    return Plan(site, tuple(planned), notes=() if planned else (Note(domain.name, text),))


def propose_power(
    ports: Ports, names: Sequence[str], action: Action, *, timeout: float, discard_saved: bool
) -> tuple[Proposal, ...]:
    """Return a proposal of its own for each guest, so that one that fails undoes nothing of the others.

    :raises NotFound: one of the names is unknown; :raises Refused: one is foreign; :raises NoCapacity: the host has not
        enough for those that would start.
    """
    observed = observe(ports)
    host = host_spec(ports) if action in STARTS else None
    if action in STARTS:
        found = [domain for name in names if (domain := find(name, observed)) is not None]
        raise_all(against_start(found, observed, host))
    return tuple(_proposal(name, action, observed, timeout, discard_saved, host) for name in dict.fromkeys(names))


def power_all(
    ports: Ports,
    names: Sequence[str],
    action: Action,
    *,
    timeout: float = 180.0,
    discard_saved: bool = False,
    on_event: Callable[[Event], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> tuple[PowerResult, ...]:
    """Do one action on many guests, eight at a time; a guest that fails does not stop the others.

    :raises NotFound: one of the names is unknown; :raises Refused: one is foreign; nothing was done then.
    """
    proposed = propose_power(ports, names, action, timeout=timeout, discard_saved=discard_saved)
    proposals = list(zip(dict.fromkeys(names), proposed, strict=True))

    def one(pair: tuple[str, Proposal]) -> PowerResult:
        name, proposal = pair
        if proposal.empty:
            return PowerResult(name, proposal.plan.notes[0].text)
        try:
            outcome = apply_proposal(ports, proposal, on_event=on_event, cancelled=cancelled)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this guest's
            plain = _plain(outcomes.as_failure(error, name))
            return PowerResult(name, str(plain), plain)
        return PowerResult(name, f"{action} done in {outcome.total_seconds:.1f} s")

    with ThreadPoolExecutor(min(AT_ONCE, len(proposals) or 1), thread_name_prefix="power") as pool:
        return tuple(side_by_side(pool, one, proposals))


def _plain(error: VmhostError) -> VmhostError:
    """Return what a guest did or did not do where that is all: it runs on, and nothing had to be undone."""
    if isinstance(error, ApplyError) and isinstance(error.__cause__, GuestError) and not error.leftovers:
        return error.__cause__
    return error


def raise_failures(results: Sequence[PowerResult]) -> None:
    """Return when all went well.

    :raises VmhostError: the only failure; :raises Cancelled: some were cancelled; :raises PartlyDone: some failed.
    """
    outcomes.raise_failures(results, failed="failed", cancelled="stay as they were", hint="vmhost guest list")


def _proposal(
    name: str, action: Action, observed: Observed, timeout: float, discard_saved: bool, host: HostSpec | None
) -> Proposal:
    def plan(seen: Observed) -> Plan:
        return plan_power(name, action, seen, timeout=timeout, discard_saved=discard_saved)

    def again(fresh: Observed) -> Plan:
        domain = find(name, fresh)
        if action in STARTS and domain is not None:
            raise_all(against_start([domain], fresh, host))
        return plan(fresh)

    return Proposal(f"{action} {name}", plan(observed), again, locks_host=False)


def _steps(domain: ObservedDomain, action: Action, timeout: float, discard_saved: bool) -> tuple[list[Planned], str]:
    uuid, name = domain.uuid, domain.name
    start, stop, off = StartDomain(uuid, name), ShutDown(uuid, name, timeout), PowerOff(uuid, name)
    match action:
        case "start" if domain.active:
            return [], "it runs already"
        case "start":
            discard = DiscardManagedSave(uuid, name)
            saved = discard_saved and domain.raw.managed_save
            first = [_planned(discard, None, Change.NEEDS_STOP, name, "discard its saved memory")] if saved else []
            return [*first, _planned(start, stop, Change.LIVE, name, "start")], ""
        case "stop" | "power-off" if not domain.active:
            return [], "it does not run"
        case "stop":
            return [_planned(stop, start, Change.NEEDS_STOP, name, "shut down")], ""
        case "power-off":
            return [_planned(off, start, Change.NEEDS_STOP, name, "power off")], ""
        case "restart":
            first = [_planned(stop, start, Change.NEEDS_STOP, name, "shut down")] if domain.active else []
            return [*first, _planned(start, stop, Change.NEEDS_STOP, name, "start")], ""
        case "autostart" | "no-autostart":
            return _autostart(domain, action == "autostart")


def _autostart(domain: ObservedDomain, on: bool) -> tuple[list[Planned], str]:
    uuid, name = domain.uuid, domain.name
    if domain.raw.autostart == on:
        return [], f"autostart is {'on' if on else 'off'} already"
    text = "starts with the host" if on else "no longer starts with the host"
    do, undo = SetAutostart(uuid, name, on), SetAutostart(uuid, name, not on)
    return [_planned(do, undo, Change.LIVE, name, text)], ""


def _planned(do: Step, undo: Step | None, change: Change, name: str, text: str) -> Planned:
    return Planned(do, undo, change, name, f"{name}: {text}")
