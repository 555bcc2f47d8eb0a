"""NICs that are plugged into a guest while it runs, and taken out again: link down, tag, link up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vmhost.model.guard import guard_of
from vmhost.model.identity import NicIdentity
from vmhost.model.netsteps import SetPortVlans
from vmhost.model.plan import Change, Planned
from vmhost.model.steps import GuardPort, IsolatePort, PlugNic, SetNicLink, UnguardPort, UnplugNic
from vmhost.model.vlans import NO_VLAN, PortVlans, format_vids
from vmhost.plan.compare import Delta, Pair
from vmhost.render import amend
from vmhost.render.parse.domain import NIC_ALIAS


@dataclass(frozen=True, slots=True)
class Plugging:
    """What is done to the NICs of a running guest: ``before`` and ``after`` the commit point.

    ``fields`` are the differences that it mends at once.
    """

    before: tuple[Planned, ...] = ()
    after: tuple[Planned, ...] = ()
    fields: frozenset[str] = frozenset()


def plan_plugging(pair: Pair, deltas: Sequence[Delta], definition: str) -> Plugging:
    """Return the steps that plug NICs in and take NICs out, without a restart.

    What the guest's system has to let go of is taken out after the commit point: by then its link is down and its port
    in no VLAN, so that it carries nothing, whatever the guest does.

    :param definition: the domain's XML as it will be.
    """
    if not pair.domain.active or pair.spec.state != "running":
        return Plugging()
    before: list[Planned] = []
    after: list[Planned] = []
    fields: set[str] = set()
    for delta in deltas:
        kind, _, nic_id = delta.field.partition(".")
        nic_id, _, rest = nic_id.partition(".")
        if kind != "nics" or rest not in ("", "plugged"):
            continue
        if delta.want and (nic := _wanted(pair, nic_id)) is not None:
            fields.add(delta.field)
            before += _plug(pair, nic, definition)
        elif not delta.want and (old := _present(pair, nic_id)) is not None:
            fields.add(delta.field)
            before += _silence(pair, old)
            after += _unplug(pair, old)
    return Plugging(tuple(before), tuple(after), frozenset(fields))


def _wanted(pair: Pair, nic_id: str) -> NicIdentity | None:
    """Return a NIC that is to be there, if it can be plugged in: not one of QEMU's user network."""
    nic = next((nic for nic in pair.identity.nics if nic.id == nic_id), None)
    return nic if nic is not None and pair.site.networks[nic.network].type == "bridge" else None


def _present(pair: Pair, nic_id: str) -> NicIdentity | None:
    """Return a NIC that is in the definition, with the VLANs that its port is noted to be in."""
    noted = pair.domain.metadata.identity.nics if pair.domain.metadata else ()
    found = next((nic for nic in pair.domain.facts.nics if nic.alias == f"{NIC_ALIAS}{nic_id}"), None)
    if found is None or found.type != "bridge":
        return None
    known = next((nic for nic in noted if nic.id == nic_id), None)
    return known or NicIdentity(nic_id, "", found.mac, found.tap)


def _plug(pair: Pair, nic: NicIdentity, definition: str) -> list[Planned]:
    if pair.domain.plugged(nic.tap):
        return []
    uuid, name = pair.identity.uuid, pair.spec.name
    xml = amend.with_link_down(amend.device_xml(definition, f"{NIC_ALIAS}{nic.id}"))
    do, undo = PlugNic(uuid, name, nic.mac, xml), UnplugNic(uuid, name, nic.mac)
    steps = [Planned(do, undo, Change.LIVE, name, f"{name}: plug in NIC {nic.id} with its link down")]
    steps += _guard(name, nic)
    if vlans := nic.vlans:
        why = f"{name}: port {nic.tap} {NO_VLAN} -> {vlans}"
        steps.append(Planned(_vlans(nic.tap, vlans), _vlans(nic.tap, NO_VLAN), Change.LIVE, name, why))
    why = f"{name}: NIC {nic.id} link up"
    return [*steps, Planned(_link(pair, nic, True), _link(pair, nic, False), Change.LIVE, name, why)]


def _guard(name: str, nic: NicIdentity) -> list[Planned]:
    """Return the steps that make guard and isolation hold before the link of a new NIC goes up."""
    steps = []
    if wanted := guard_of(nic):
        why = f"{name}: guard port {nic.tap} against speaking in the name of others"
        steps.append(Planned(GuardPort(wanted), UnguardPort(nic.tap), Change.LIVE, name, why))
    if nic.isolated:
        # Without an undo: it goes with the port.
        steps.append(
            Planned(IsolatePort(nic.tap, True), None, Change.LIVE, name, f"{name}: port {nic.tap} is isolated")
        )
    return steps


def _silence(pair: Pair, nic: NicIdentity) -> list[Planned]:
    if not pair.domain.plugged(nic.tap):
        return []
    name = pair.spec.name
    why = f"{name}: NIC {nic.id} link down"
    steps = [Planned(_link(pair, nic, False), _link(pair, nic, True), Change.LIVE, name, why)]
    link = pair.observed.link(nic.tap)
    if link is not None and link.vlans != NO_VLAN:
        why = f"{name}: port {nic.tap} {link.vlans} -> {NO_VLAN}"
        undo = _vlans(nic.tap, link.vlans)
        steps.append(Planned(_vlans(nic.tap, NO_VLAN), undo, Change.LIVE, name, why))
    return steps


def _unplug(pair: Pair, nic: NicIdentity) -> list[Planned]:
    if not pair.domain.plugged(nic.tap):
        return []
    uuid, name = pair.identity.uuid, pair.spec.name
    steps = [Planned(UnplugNic(uuid, name, nic.mac), None, Change.LIVE, name, f"{name}: take out NIC {nic.id}")]
    if any(one.port == nic.tap for one in pair.observed.guards):
        why = f"{name}: port {nic.tap} is no longer guarded"
        steps.append(Planned(UnguardPort(nic.tap), None, Change.LIVE, name, why))
    return steps


def _link(pair: Pair, nic: NicIdentity, up: bool) -> SetNicLink:
    return SetNicLink(pair.identity.uuid, pair.spec.name, nic.mac, up)


def _vlans(tap: str, vlans: PortVlans) -> SetPortVlans:
    return SetPortVlans(tap, vlans.pvid, format_vids(vlans.untagged), format_vids(vlans.tagged))
