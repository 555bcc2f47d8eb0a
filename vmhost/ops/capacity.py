"""The capacity of a host, and guests on other pCPUs: what the faces ask of the placer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from vmhost.engine.observe import observe
from vmhost.model.errors import UsageError
from vmhost.ops.build import user_name
from vmhost.ops.hostfile import host_spec, with_host
from vmhost.ops.proposals import Proposal

if TYPE_CHECKING:
    from vmhost.model.capacity import Capacity
    from vmhost.model.observed import Observed
    from vmhost.model.permit import Permit
    from vmhost.model.plan import Plan
    from vmhost.model.spec import GuestSpec, HostSpec, Site
    from vmhost.ports import Ports

KINDS: Final[Mapping[str, str]] = {"small": "1x1G", "medium": "2x4G", "large": "4x8G"}
"""Kinds of guests to ask about where no site file names profiles: vCPUs x memory."""
_KIND: Final = re.compile(r"(\d{1,3})x([0-9.]+[KMGT]?)(?::(shared|dedicated|isolated))?")


def capacity(ports: Ports, fits: Sequence[str] = (), site: Site | None = None, *, measure: float = 0.0) -> Capacity:
    """Return what the host has, who has it, and how many more guests of each kind would fit.

    :param fits: ``small``, ``medium``, ``large``, guests of the site (a profile shows through one), or ``2x4G`` and
        ``4x8G:dedicated``.
    :param measure: seconds in which to watch who waits for pCPUs; 0: not at all.
    :raises UsageError: one of them is no kind of guest.
    """
    from vmhost.plan.capacity import capacity_of

    observed = observe(ports)
    host = with_host(site, ports).host if site else host_spec(ports)
    found = capacity_of(observed, host, [(kind, kind_of(kind, site)) for kind in fits])
    return _measured(ports, found, observed, host, measure) if measure and observed.host.local else found


def _measured(ports: Ports, found: Capacity, observed: Observed, host: HostSpec, seconds: float) -> Capacity:
    from vmhost.plan.capacity import busy_links, short_of, thresholds_of
    from vmhost.plan.starving import starved

    start, before, carried = monotonic(), ports.kernel.held(), ports.kernel.traffic()
    Event().wait(seconds)
    after, now, elapsed = ports.kernel.held(), ports.kernel.traffic(), monotonic() - start
    names = {domain.uuid: domain.name for domain in observed.domains}
    links = busy_links(carried, now, elapsed, thresholds_of(host))
    return replace(
        found,
        starved=starved(before, after, names, elapsed),
        pressure=tuple(sorted(ports.kernel.pressure().items())),
        taken=(*found.taken, *links),
        short=(*found.short, *short_of(links)),
    )


def kind_of(kind: str, site: Site | None = None) -> GuestSpec:
    """Return a guest of that kind. :raises UsageError: there is no such kind."""
    from vmhost.model.spec import DiskSpec, GuestSpec

    if site is not None and (found := site.guest(kind)) is not None:
        return found
    match = _KIND.fullmatch(KINDS.get(kind, kind))
    try:
        if match is None:
            raise ValueError("no kind of guest")
        count, memory, policy = match.groups()
        return GuestSpec.model_validate(
            {
                "name": "one-more",
                "image": "any",
                "cpus": {"count": int(count), "policy": policy},
                "memory": memory,
                "disks": (DiskSpec(id="root", size=1 << 30),),
            }
        )
    except ValueError as error:
        known = ", ".join(KINDS)
        text = f"{kind!r} is no kind of guest: write {known}, 2x4G or 4x8G:dedicated, or a guest of --site"
        raise UsageError(text, subject="--fits", hint="vmhost host capacity --fits small,4x8G:dedicated") from error


def propose_pin(ports: Ports, name: str, change: Mapping[str, Any], permit: Permit) -> Proposal:
    """Plan another place for a guest.

    :param change: fields of ``cpus`` in a site file: ``policy``, ``pins``, ``threads``, ``dedicated``, ``emulator``,
        ``limit``, ``request``, ``shares``.
    :raises NotFound: no such guest; :raises Refused: they make no guest, or there is no such place.
    """
    from vmhost.model.spec import CpuSpec
    from vmhost.ops.forms import now_text
    from vmhost.plan.resize import PIN, Resize, plan_resize

    # Whether the fields go together depends on the guest: that is looked at where it is known.
    asked = CpuSpec.model_construct(_fields_set=set(change), **change)
    wish = Resize(name, asked, None, now_text(ports), user_name(), PIN)
    host = host_spec(ports)

    def again(fresh: Observed) -> Plan:
        return plan_resize(wish, fresh, permit, host)

    return Proposal(operation=f"pin {name}", plan=again(observe(ports)), again=again)
