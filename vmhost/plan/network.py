"""The network of a site as a plan of its own: with what is kept for the next boot, and guarded where it may cut off."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from vmhost.model.errors import Refused
from vmhost.model.netsteps import (
    AttachUplink,
    AwaitConfirmation,
    CreateBridge,
    DeleteBridge,
    DismissGuard,
    GuardNetwork,
    InstallNetworkUnit,
    KeeperStep,
    KeepNetwork,
    LinkStep,
    RemoveNetworkUnit,
    add_route,
)
from vmhost.model.observed import Observed, ObservedLink
from vmhost.model.plan import Change, Difference, Note, Plan, Planned
from vmhost.model.spec import Site
from vmhost.plan.hostlinks import leave_host_links, own_vlans, wanted_links, wanted_routes
from vmhost.plan.links import bridge_alias, create_bridge, plan_bridges
from vmhost.plan.request import NotFound, Refusal, raise_all
from vmhost.plan.turns import Turn, Turns, port_step
from vmhost.plan.uplinks import leave_uplink, uplink_vlans

SUBJECT = "network"
"""What the steps that keep and guard are about."""


def plan_network(site: Site, observed: Observed, *, seconds: int, prune: frozenset[str] = frozenset()) -> Plan:
    """Return the plan that brings the host's network to the site.

    A change that touches an uplink, or what the host reaches through it, begins with a watchdog and waits for its
    confirmation; any other one is kept at once.

    :param seconds: how long the watchdog waits for the confirmation.
    :param prune: bridges of the site that have left its file and are to go.
    :raises Refused: with every reason at once; :raises NotFound: a link or bridge is missing.
    """
    changes = plan_bridges(site, observed)
    changes.add(_prune(site, observed, prune))
    raise_all([*still_open(observed), *changes.refusals])
    steps = [turn.planned for turn in changes.turns]
    keep = keep_steps(site, observed, prune)
    notes = (*changes.notes, *_left(site, observed, prune))
    if not (changes.guarded and steps):
        return Plan(site.name, (*steps, *keep), notes=notes)
    kept = KeepNetwork(site.name, tuple(kept_steps(site, observed)))
    undo = tuple(cast(LinkStep, item.undo) for item in reversed(steps))
    guard = GuardNetwork(site.name, seconds, undo, kept, observed.network.kept_of(site.name))
    why = f"back to what it is now, unless this is confirmed within {seconds} s"
    wait = f"wait {seconds} s for vmhost net confirm"
    return Plan(
        site.name,
        (
            _step(guard, DismissGuard(site.name, confirmed=False), why),
            *steps,
            _step(AwaitConfirmation(site.name), None, wait),
        ),
        notes=notes,
    )


def plan_confirmation(observed: Observed) -> Plan:
    """Return the plan that makes the change that waits stay.

    :raises NotFound: nothing waits; :raises Refused: the watchdog was faster.
    """
    pending = observed.network.pending
    if pending is None:
        raise NotFound("no network change waits for a confirmation", subject=SUBJECT, hint="vmhost net show")
    if pending.state in ("restoring", "restored"):
        text = "it is too late: the former network was put back"
        raise Refused(text, subject=pending.site, hint="vmhost net apply SITE")
    first = _step(DismissGuard(pending.site, confirmed=True), None, "this change stays, also at the next boot")
    unit = [item for item in _kept(pending.keep, observed) if not isinstance(item.do, KeepNetwork)]
    return Plan(pending.site, (first,), tuple(unit))


def network_drift(site: Site, observed: Observed) -> tuple[Difference, ...]:
    """Return where the host's network is not as the site says."""
    changes = plan_bridges(site, observed)
    applied = frozenset(observed.network.kept_of(site.name).steps)
    refused = (Difference(item.subject, "wish", "possible here", item.text) for item in changes.refusals)
    return (*(turn.difference(applied) for turn in changes.turns), *refused)


def still_open(observed: Observed) -> list[Refusal]:
    """Return why nothing can be planned while a network change waits for its confirmation."""
    pending = observed.network.pending
    if pending is None or not pending.open:
        return []
    text = f"a network change of site {pending.site} waits for its confirmation"
    return [Refusal(SUBJECT, text, "vmhost net confirm; or wait until it is taken back", Refused)]


def kept_steps(site: Site, observed: Observed) -> Iterator[LinkStep]:
    """Yield the steps that make a site's network out of nothing, as the host's next boot will do."""
    for name, spec in site.bridges.items():
        yield create_bridge(site.name, name, spec)
        links = wanted_links(site, name, spec)
        if spec.uplink:
            yield AttachUplink(spec.uplink, name)
            if spec.mode == "vlan-aware":
                yield port_step(spec.uplink, uplink_vlans(site, name, spec, observed))
        if links:
            yield port_step(name, own_vlans(links))
        yield from links
        yield from (add_route(route) for route in wanted_routes(site, name))


def keep_steps(site: Site, observed: Observed, prune: frozenset[str] = frozenset()) -> list[Planned]:
    """Return the steps that keep a site's network for the next boot.

    Only who has systemd starts our unit at boot; what an uplink was is kept in any case, since no link says so itself.
    """
    network = observed.network
    has_uplink = any(spec.uplink for spec in site.bridges.values())
    if not (network.systemd or has_uplink or network.kept_of(site.name).steps):
        return []
    return _kept(KeepNetwork(site.name, tuple(kept_steps(site, observed))), observed)


def _kept(keep: KeepNetwork, observed: Observed) -> list[Planned]:
    network, steps = observed.network, []
    before = network.kept_of(keep.site)
    if before != keep:
        why = "keep it for the next boot" if keep.steps else f"forget that of site {keep.site}"
        steps.append(_step(keep, before, why))
    others = any(kept.steps for kept in network.kept if kept.site != keep.site)
    if network.systemd and keep.steps and not network.unit:
        why = "a unit that makes it anew at every boot, before libvirt"
        steps.append(_step(InstallNetworkUnit(), RemoveNetworkUnit(), why))
    elif network.unit and not keep.steps and not others:
        steps.append(_step(RemoveNetworkUnit(), InstallNetworkUnit(), "take its unit away"))
    return steps


def forget(site: str, observed: Observed) -> list[Planned]:
    """Return the steps that forget a site's network, when its last bridge goes."""
    if not observed.network.kept_of(site).steps:
        return []
    return _kept(KeepNetwork(site), observed)


def _step(do: KeeperStep, undo: KeeperStep | None, why: str) -> Planned:
    return Planned(do, undo, Change.LIVE, SUBJECT, f"{SUBJECT}: {why}")


def _bridges_left(site: Site, observed: Observed) -> list[ObservedLink]:
    alias = bridge_alias(site.name)
    links = (link for link in observed.links if link.kind == "bridge" and link.alias == alias)
    return [link for link in links if link.name not in site.bridges]


def _left(site: Site, observed: Observed, prune: frozenset[str]) -> list[Note]:
    return [
        Note(link.name, f"it is no longer in the site and stays as it is; --prune {link.name} removes it")
        for link in _bridges_left(site, observed)
        if link.name not in prune
    ]


def _prune(site: Site, observed: Observed, prune: frozenset[str]) -> Turns:
    """Return what removes bridges that left the site, with all that hangs on them and is ours."""
    found = Turns()
    left = {link.name: link for link in _bridges_left(site, observed)}
    for name in sorted(prune):
        link = left.get(name)
        if link is None:
            text = "it is in the site and cannot be pruned" if name in site.bridges else "the site has no such bridge"
            found.refusals.append(Refusal(name, text, "vmhost net show", Refused if name in site.bridges else NotFound))
            continue
        users = sorted(
            domain.name for domain in observed.domains if any(nic.source == name for nic in domain.facts.nics)
        )
        if users:
            text = f"guests are on it: {', '.join(users)}"
            found.refusals.append(Refusal(name, text, "vmhost guest list", Refused))
            continue
        uplink = leave_uplink(site.name, name, observed)
        found.turns += [*leave_host_links(site.name, name, observed), *uplink, _delete(site.name, link)]
        found.guarded |= bool(uplink)
    return found


def _delete(site: str, link: ObservedLink) -> Turn:
    address = next((held.address for held in link.held if held.lasting), "")
    made = CreateBridge(link.name, site, link.mtu, address, link.vlan_filtering, link.ipv6)
    return Turn(DeleteBridge(link.name, site), made, link.name, "bridge", "absent", "there", "delete this bridge")
