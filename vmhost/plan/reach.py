"""How the host gets to guests: what is noted with each NIC, and the access ports into VLANs that this takes."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import replace

from vmhost.model.identity import NicIdentity
from vmhost.model.observed import Observed
from vmhost.model.plan import Change, Planned
from vmhost.model.reach import AccessPort, Jump
from vmhost.model.spec import NetworkSpec, Site
from vmhost.model.steps import CloseAccess, OpenAccess
from vmhost.model.vlans import port_vlans
from vmhost.plan.links import bridge_alias
from vmhost.plan.request import Refusal, Refused
from vmhost.plan.vlans import in_vlans

MTU = 1500


def with_reach(nic: NicIdentity, network: NetworkSpec) -> NicIdentity:
    """Return a NIC with the way to it; its VLANs are noted already."""
    if network.type != "bridge" or network.reach == "route":
        return nic
    if network.reach == "port" and nic.pvid:
        prefix = ipaddress.ip_network(network.subnet or "").prefixlen
        return replace(nic, reach="port", via=f"{network.reach_address}/{prefix}")
    if network.reach == "jump" and network.jump:
        jump = network.jump
        return replace(nic, reach="jump", via=str(Jump(jump.user, jump.host, jump.port, jump.host_key)))
    return replace(nic, reach="agent")


def wanted_nics(site: Site) -> tuple[NicIdentity, ...]:
    """Return the NICs of a site's guests, as far as it says how the host gets to them."""
    return tuple(
        with_reach(in_vlans(NicIdentity(nic.id or nic.network, nic.network, ""), nic, network), network)
        for guest in site.guests
        for nic in guest.nics
        if (network := site.networks[nic.network]).reach == "port"
    )


def plan_access(site: Site, nics: Iterable[NicIdentity], observed: Observed) -> tuple[list[Planned], list[Refusal]]:
    """Return the steps that make the access ports for these NICs that are not there, and what speaks against it."""
    steps: list[Planned] = []
    refusals: list[Refusal] = []
    for nic in _each(nics):
        access = nic.way
        assert isinstance(access, AccessPort)
        link = observed.link(access.port)
        if not (observed.host.privileged and observed.host.local):
            text = f"reach: port needs the system's libvirt of this machine, not {observed.host.uri}"
            refusals.append(Refusal(nic.network, text, "vmhost -c qemu:///system plan SITE", Refused))
        elif link is not None and not link.alias.startswith("vmhost:"):
            text = f"its access port {access.port} is a link of another"
            refusals.append(Refusal(nic.network, text, f"ip -details link show {access.port}"))
        elif not _stands(access, observed):
            owner = link.alias.removeprefix("vmhost:") if link else site.name
            steps.append(
                _open(access, owner, observed, site.bridges[access.bridge].mtu if access.bridge in site.bridges else 0)
            )
    return steps, refusals


def _each(nics: Iterable[NicIdentity]) -> Iterator[NicIdentity]:
    """Yield one NIC for each VLAN that the host has to get into."""
    found = {(nic.bridge, nic.pvid): nic for nic in nics if nic.reach == "port"}
    yield from found.values()


def _stands(access: AccessPort, observed: Observed) -> bool:
    link = observed.link(access.port)
    return (
        link is not None
        and access.namespace in observed.namespaces
        and (link.master, link.up, link.vlans) == (access.bridge, True, port_vlans(access.vid))
    )


def _open(access: AccessPort, site: str, observed: Observed, mtu: int) -> Planned:
    bridge = observed.link(access.bridge)
    mtu = bridge.mtu if bridge else mtu or MTU
    do = OpenAccess(access.bridge, access.vid, access.address, mtu, site)
    undo = CloseAccess(access.bridge, access.vid, access.address, site)
    why = f"{access.bridge}: access port of this host into VLAN {access.vid} with {access.address}"
    return Planned(do, undo, Change.LIVE, access.bridge, why)


def lost_access(observed: Observed) -> list[Planned]:
    """Return the steps that make those access ports anew that running guests are reached by and that are gone."""
    steps: dict[str, Planned] = {}
    for domain in observed.domains:
        metadata = domain.metadata
        if metadata is None or not metadata.readable or not domain.active:
            continue
        for nic in _each(metadata.identity.nics):
            access = nic.way
            assert isinstance(access, AccessPort)
            link = observed.link(access.port)
            ours = link is None or link.alias.startswith("vmhost:")
            if ours and observed.link(access.bridge) is not None and not _stands(access, observed):
                owner = link.alias.removeprefix("vmhost:") if link else metadata.site
                steps.setdefault(access.port, _open(access, owner, observed, 0))
    return list(steps.values())


def unused_access(observed: Observed, leaving: frozenset[str], wanted: Iterable[NicIdentity] = ()) -> list[Planned]:
    """Return the steps that take access ports away that nobody needs any more.

    :param leaving: domains (UUIDs) that go, or whose NICs become others.
    :param wanted: NICs that there will be.
    """
    needed = {(nic.bridge, nic.pvid) for nic in wanted if nic.reach == "port"}
    going: dict[tuple[str, int], AccessPort] = {}
    for domain in observed.domains:
        for nic in domain.metadata.identity.nics if domain.metadata else ():
            if nic.reach != "port":
                continue
            if domain.uuid in leaving:
                going[nic.bridge, nic.pvid] = AccessPort(nic.bridge, nic.pvid, nic.via)
            else:
                needed.add((nic.bridge, nic.pvid))
    steps = []
    for place, access in going.items():
        link = observed.link(access.port)
        if place in needed or link is None or not link.alias.startswith("vmhost:"):
            continue
        owner = link.alias.removeprefix("vmhost:")
        assert link.alias == bridge_alias(owner)
        why = f"{access.bridge}: take away this host's access port into VLAN {access.vid}, nobody needs it"
        do = CloseAccess(access.bridge, access.vid, access.address, owner)
        steps.append(Planned(do, None, Change.LIVE, access.bridge, why))
    return steps
