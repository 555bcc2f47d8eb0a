"""The host's network as one thing: what a site makes of it, on trial until it is confirmed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from vmhost.engine.observe import observe
from vmhost.model.errors import UsageError
from vmhost.model.reservations import iso
from vmhost.plan.network import network_drift, plan_confirmation, plan_network
from vmhost.plan.request import raise_all
from vmhost.plan.reserve import Settled, settle_vlans, usage

if TYPE_CHECKING:
    from vmhost.model.observed import Observed
    from vmhost.model.plan import Difference, Plan
    from vmhost.model.spec import Site
    from vmhost.ops.proposals import Proposal
    from vmhost.ports import Ports

CONFIRM: Final = 60
"""Seconds that a person has to confirm, when nobody says otherwise."""

SHORTEST: Final = 5
LONGEST: Final = 3600


def propose_network(ports: Ports, site: Site, *, confirm: int = CONFIRM, prune: Iterable[str] = ()) -> Proposal:
    """Observe the host and plan the network of a site, without its guests.

    :param confirm: seconds, 5 to 3600, after which a change that may cut this host off is taken back.
    :raises UsageError: other seconds; :raises Refused, NotFound: it cannot be done here, with every reason.
    """
    from vmhost.ops.proposals import Proposal

    if not SHORTEST <= confirm <= LONGEST:
        text = f"{confirm} s is no time to confirm in: {SHORTEST} to {LONGEST}"
        raise UsageError(text, hint="vmhost net apply SITE --confirm 60")
    going = frozenset(prune)

    now = iso(ports.clock.now())

    def settled(fresh: Observed) -> Settled:
        return settle_vlans(site, usage(fresh.reservations, fresh.domains, fresh.links, now), now)

    def again(fresh: Observed) -> Plan:
        chosen = settled(fresh)
        raise_all(list(chosen.refusals))
        plan = plan_network(chosen.site, fresh, seconds=confirm, prune=going)
        return replace(plan, steps=(*chosen.steps, *plan.steps))

    def differences(fresh: Observed) -> tuple[Difference, ...]:
        return network_drift(settled(fresh).site, fresh)

    return Proposal(f"network {site.name}", again(observe(ports)), again, drift=differences)


def propose_confirmation(ports: Ports) -> Proposal:
    """Plan that the network change that waits stays.

    :raises NotFound: nothing waits; :raises Refused: the former network was put back already.
    """
    from vmhost.ops.proposals import Proposal

    return Proposal("confirm network", plan_confirmation(observe(ports)), plan_confirmation)
