"""What contradicts itself in the VLANs of a site."""

from __future__ import annotations

from vmhost.model.spec import BridgeSpec, NetworkSpec, NicSpec
from vmhost.model.units import parse_vid_range
from vmhost.model.vlans import parse_vids, port_vlans
from vmhost.plan.inherit import Draft


def check_vlans(draft: Draft) -> None:
    """Note networks that cannot be VLANs of their bridge, or that the host cannot reach as they say."""
    taken: dict[tuple[str, int], str] = {}
    for name, network in draft.written.networks.items():
        vlan = network.vlan
        if network.bridge is None or vlan is None:
            continue
        bridge = draft.written.bridges.get(network.bridge)
        if bridge and bridge.mode != "vlan-aware":
            text = f"bridge {network.bridge} keeps no VLANs apart: write mode: vlan-aware there"
            draft.fault(text, "networks", name, "vlan")
        elif bridge and network.reach == "route" and not network.address:
            what = "a VLAN" if vlan == "auto" else f"VLAN {vlan}"
            text = f"the host has no way into {what} of {network.bridge}: write reach: port, jump or agent"
            draft.fault(text, "networks", name, "vlan")
        if not isinstance(vlan, int):
            continue
        first = taken.setdefault((network.bridge, vlan), name)
        if first != name:
            draft.fault(f"VLAN {vlan} of {network.bridge} is network {first}", "networks", name, "vlan")
    _check_ranges(draft)


def _check_ranges(draft: Draft) -> None:
    """Note ranges that overlap in part: networks share a range as a whole, or not at all."""
    known: dict[str, tuple[int, int]] = {}
    for name, network in draft.written.networks.items():
        if network.range is None:
            continue
        first, last = parse_vid_range(network.range)
        for other, (low, high) in known.items():
            if (first, last) != (low, high) and first <= high and low <= last:
                text = (
                    f"{network.range} overlaps with {low}-{high} of network {other}: write the same range, or another"
                )
                draft.fault(text, "networks", name, "range")
        known[name] = (first, last)


def port_fault(nic: NicSpec, network: NetworkSpec, bridge: BridgeSpec | None) -> str:
    """Return why a NIC cannot have its port on its network, or an empty text."""
    if nic.tagged and (network.type == "user" or (bridge and bridge.mode != "vlan-aware")):
        return f"network {nic.network} has no VLANs: leave it out"
    if network.type == "user" and (nic.isolated or nic.bandwidth or nic.spoofing == "refused"):
        return f"network {nic.network} has no port on the host: leave isolated, spoofing and bandwidth out"
    if bridge and bridge.mode == "vlan-aware" and network.vlan is None and not nic.tagged:
        return f"network {nic.network} has no vlan, and the NIC no tagged: its port would carry nothing"
    try:
        port_vlans(network.vlan if isinstance(network.vlan, int) else 0, parse_vids(nic.tagged or ""))
    except ValueError as error:
        return str(error)
    return ""
