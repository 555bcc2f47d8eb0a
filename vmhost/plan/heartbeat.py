"""A guest that does not answer any more: whether its silence means anything, and the plan that restarts it."""

from __future__ import annotations

from typing import Final

from vmhost.model.domains import DomainState
from vmhost.model.observed import Observed, ObservedDomain
from vmhost.model.plan import Change, Plan, Planned
from vmhost.model.spec.heartbeat import HeartbeatSpec
from vmhost.model.steps import PowerOff, ShutDown, StartDomain
from vmhost.plan.applied import applied_spec
from vmhost.plan.found import find_ours
from vmhost.plan.overlays import refuse_out_of_sight
from vmhost.plan.request import Protected
from vmhost.plan.tuning import check_start
from vmhost.render.document import read
from vmhost.render.parse.snapshots import parse_snapshots
from vmhost.render.parse.tuning import parse_tuning

_RUNS: Final = frozenset({DomainState.RUNNING, DomainState.BLOCKED})


def heartbeat_of(domain: ObservedDomain) -> HeartbeatSpec | None:
    """Return how a guest wants to be looked at while it runs, or None: not at all."""
    spec = applied_spec(domain)
    return spec.heartbeat if spec else None


def run_of(domain: ObservedDomain) -> str:
    """Return what this run of a guest is known by: libvirt's number of it."""
    return read(domain.raw.live_xml).get("id", "") if domain.raw.live_xml else ""


def silent_by_right(domain: ObservedDomain) -> bool:
    """Whether a guest cannot be expected to answer: it is off, paused, comes in from another host, is frozen, or in its
    first boot.
    """
    first = domain.metadata is None or domain.metadata.pending
    return first or domain.raw.state not in _RUNS or bool(parse_snapshots(domain.raw.xml).frozen)


def is_protected(domain: ObservedDomain) -> bool:
    """Whether a guest is never shut down for its silence."""
    return domain.metadata is not None and domain.metadata.protect


def plan_revival(name: str, observed: Observed, *, cause: str, shutdown: float, power_off: bool) -> Plan:
    """Return the plan that restarts a guest which does not answer.

    :param shutdown: seconds that it has to shut down. :param power_off: do not ask it, since it did not hear.
    Whatever of it is undone, the guest is to run in the end: it ran before.

    :raises NotFound: it is gone; :raises Refused: it is not ours, or its next start would go without what it wrote;
        :raises Protected: it is protected. Not even asked:
        one that hears late would shut down when nobody waits for it any more.
    """
    domain = find_ours(name, observed)
    uuid = domain.uuid
    if is_protected(domain):
        raise Protected("it is protected, so it is not restarted", subject=name, hint=f"vmhost guest console {name}")
    refuse_out_of_sight(domain, observed.pools)
    stop = PowerOff(uuid, name) if power_off else ShutDown(uuid, name, shutdown)
    words = "power off" if power_off else "shut down"
    start = StartDomain(uuid, name)
    steps = [
        Planned(stop, start, Change.NEEDS_STOP, name, f"{name}: {words}, since it does not answer: {cause}"),
        Planned(start, None, Change.NEEDS_STOP, name, f"{name}: start"),
        *check_start(uuid, name, parse_tuning(domain.raw.xml), observed),
    ]
    return Plan(domain.metadata.site if domain.metadata else "", tuple(steps))


def plan_return(name: str, observed: Observed) -> Plan:
    """Return the plan that starts a guest which was asked to shut down as one that hangs, and heard too late.

    :raises NotFound: it is gone; :raises Refused: it is not ours.
    """
    domain = find_ours(name, observed)
    start = Planned(
        StartDomain(domain.uuid, name), None, Change.NEEDS_STOP, name, f"{name}: start, since it heard our request late"
    )
    tuned = check_start(domain.uuid, name, parse_tuning(domain.raw.xml), observed)
    return Plan(domain.metadata.site if domain.metadata else "", (start, *tuned))
