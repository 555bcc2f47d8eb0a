"""What keeps the ports of running guests in their VLANs when others have changed them."""

from __future__ import annotations

from collections.abc import Iterator

from vmhost.model.identity import GuestMetadata
from vmhost.model.observed import Observed, ObservedDomain
from vmhost.model.plan import Note, Planned
from vmhost.plan.reach import lost_access
from vmhost.plan.vlans import set_ports, uses_vlans


def keep_ports(observed: Observed) -> tuple[tuple[Planned, ...], tuple[Note, ...]]:
    """Return the steps that put the ports of running guests of ours back into their VLANs, and the host's own access
    ports there, and what only a person can mend: a port that is on another bridge, or gone, and a bridge that keeps
    nobody apart any more.
    """
    steps: list[Planned] = []
    notes: list[Note] = []
    for domain in observed.domains:
        metadata = domain.metadata
        if metadata is None or not metadata.readable or not domain.active or not uses_vlans(metadata.identity):
            continue
        astray = list(_astray(domain, metadata, observed))
        notes += astray
        if not any(note.subject != domain.name for note in astray):
            steps += set_ports(domain.name, metadata.identity, domain, observed)
    return (*lost_access(observed), *steps), tuple(dict.fromkeys(notes))


def _astray(domain: ObservedDomain, metadata: GuestMetadata, observed: Observed) -> Iterator[Note]:
    for nic in metadata.identity.nics:
        if not nic.bridge:
            continue
        link, bridge = observed.link(nic.tap), observed.link(nic.bridge)
        if link is None and domain.plugged(nic.tap):
            yield Note(domain.name, f"port {nic.tap} is gone; vmhost guest restart {domain.name}")
        elif link is not None and link.master != nic.bridge:
            where = f"on bridge {link.master}" if link.master else "on no bridge"
            text = f"port {nic.tap} is {where}, should be on {nic.bridge}; it stays there"
            yield Note(domain.name, f"{text}; ip link set {nic.tap} master {nic.bridge}")
        elif bridge is not None and not bridge.vlan_filtering:
            text = "it does not filter VLANs any more: its guests are not kept apart"
            yield Note(bridge.name, f"{text}; ip link set {bridge.name} type bridge vlan_filtering 1")
