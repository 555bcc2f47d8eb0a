"""The examination of the host's network: its kernel, its bridges and their uplinks, and who else is on them."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote
from typing import Final, Literal

from vmhost.model.identity import NicIdentity
from vmhost.model.observed import Observed, ObservedHook, ObservedLink
from vmhost.model.outcome import Finding
from vmhost.model.wire import KernelNetwork
from vmhost.plan.netverify import add_vids, missing_vids, uplinks_of, vids_in_use
from vmhost.plan.vlans import live_ports, uses_vlans

OURS: Final = "vmhost:"
_TAPS: Final = frozenset({"tun", "macvtap"})


def examine_network(observed: Observed, kernel: KernelNetwork) -> Iterator[Finding]:
    """Yield what is right and wrong with the network that guests are on."""
    bridges = _bridges(observed)
    in_vlans = any(domain.metadata and uses_vlans(domain.metadata.identity) for domain in observed.domains)
    yield from _kernel(kernel, in_vlans or any(bridge.vlan_filtering for bridge in bridges), bool(bridges))
    for bridge in bridges:
        yield from _bridge(bridge)
        yield from _uplinks(bridge, observed)
        yield from _mtus(bridge, observed)
        yield from _strangers(bridge, observed)
    yield from _loops(bridges, observed)
    yield from _ports(observed)


def _bridges(observed: Observed) -> tuple[ObservedLink, ...]:
    """Return the bridges that we made, and those that guests of ours are on."""
    used = {nic.source for domain in observed.domains if domain.metadata for nic in domain.facts.nics}
    return tuple(
        link for link in observed.links if link.kind == "bridge" and (link.alias.startswith(OURS) or link.name in used)
    )


def _kernel(kernel: KernelNetwork, vlans: bool, bridged: bool) -> Iterator[Finding]:
    severity: Literal["error", "info"] = "error" if vlans else "info"
    if kernel.vlan_filtering is False:
        why = (
            "guests in VLANs would not be kept apart, so they do not start; it was built without BRIDGE_VLAN_FILTERING"
        )
        mend = "vmhost lab up --kernel uml    # or another kernel"
        yield Finding("vlan-filtering", "network", severity, "this kernel's bridges cannot filter VLANs", why, mend)
    elif kernel.vlan_links is False:
        why = "the host can have no address in a VLAN"
        yield Finding("vlan-links", "network", severity, "this kernel has no 802.1Q links", why, "modprobe 8021q")
    if kernel.nf_call and bridged:
        title = f"the host's packet filter sees bridged traffic: {', '.join(kernel.nf_call)}"
        why = "what guests send to each other is filtered, and mostly dropped, by rules for the host; Docker sets this"
        yield Finding("bridge-nf-call", "network", "error", title, why, _unset(kernel.nf_call))


def _unset(names: tuple[str, ...]) -> str:
    if names[0].startswith("net."):
        return f"sysctl {' '.join(f'{name}=0' for name in names)}"
    pairs = (name.split() for name in names)
    return "; ".join(f"ip link set {bridge} type bridge {setting} 0" for bridge, setting in pairs)


def _bridge(bridge: ObservedLink) -> Iterator[Finding]:
    if not bridge.alias.startswith(OURS):
        return
    if bridge.up:
        yield Finding("bridge", "network", "ok", f"bridge {bridge.name} is up")
    else:
        title, mend = f"bridge {bridge.name} is down", f"ip link set {bridge.name} up"
        yield Finding("bridge-down", "network", "error", title, "its guests reach nobody", mend)


def _uplinks(bridge: ObservedLink, observed: Observed) -> Iterator[Finding]:
    links = {link.name: link for link in observed.links}
    vids = vids_in_use(observed).get(bridge.name, frozenset())
    for uplink in uplinks_of(bridge.name, observed):
        name = uplink.name
        if not (uplink.up and uplink.carrier):
            state, mend = ("has no carrier", f"ethtool {name}") if uplink.up else ("is down", f"ip link set {name} up")
            title, why = (
                f"uplink {name} of {bridge.name} {state}",
                "guests on the bridge reach nobody outside this host",
            )
            yield Finding("uplink-down", "network", "error", title, why, mend)
        elif lacking := missing_vids(bridge.name, uplink, vids, links):
            title = f"uplink {name} of {bridge.name} does not carry VLAN {lacking}"
            why = "guests in it reach each other, and nobody outside this host"
            yield Finding("uplink-vids", "network", "error", title, why, add_vids(name, lacking))
        else:
            yield Finding("uplink", "network", "ok", f"uplink {name} of {bridge.name}")


def _mtus(bridge: ObservedLink, observed: Observed) -> Iterator[Finding]:
    """A bridge whose MTU nobody set follows its smallest port (net/bridge/br_if.c), so ports are compared, too."""
    ports = [link for link in observed.links if link.master == bridge.name]
    largest = max((bridge.mtu, *(port.mtu for port in ports)))
    for port in ports:
        if port.mtu < largest:
            title = f"port {port.name} of {bridge.name} takes {port.mtu} bytes, others {largest}"
            why = "the bridge drops larger frames on their way to it, and tells nobody"
            mend = f"ip link set {port.name} mtu {largest}"
            yield Finding("mtu", "network", "warning", title, why, mend)


def _strangers(bridge: ObservedLink, observed: Observed) -> Iterator[Finding]:
    """Yield the taps on a bridge of ours that are no guest's of ours."""
    if not bridge.alias.startswith(OURS):
        return
    known = {nic.tap for domain in observed.domains if domain.metadata for nic in domain.metadata.identity.nics}
    known |= {nic.tap for domain in observed.domains if domain.drill for nic in domain.facts.nics}
    owners = {nic.tap: domain.name for domain in observed.domains for nic in domain.facts.nics if nic.tap}
    for port in observed.links:
        if port.master == bridge.name and port.kind in _TAPS and port.name not in known:
            owner = f" of guest {owners[port.name]}" if port.name in owners else ""
            title = f"foreign tap {port.name}{owner} is on bridge {bridge.name}: {port.vlans}"
            why = "nobody here knows who is behind it" if bridge.vlan_filtering else "it hears the guests there"
            mend = f"ip link set {port.name} nomaster"
            yield Finding("foreign-tap", "network", "warning", title, why, mend)


def _loops(bridges: tuple[ObservedLink, ...], observed: Observed) -> Iterator[Finding]:
    """Yield bridges that lead back to themselves while nobody looks for loops (IEEE 802.1D: STP)."""
    groups = {link.name: link.name for link in observed.links if link.kind == "bridge"}
    for one, other in _pairs(observed):
        if _root(groups, one.master) == _root(groups, other.master):
            if not any(link.stp for link in observed.links if link.name in (one.master, other.master)):
                title = f"{one.name} and {other.name} lead from bridge {one.master} back to itself"
                why = "every broadcast goes round for ever and fills the wire; STP is off"
                yield Finding("loop", "network", "error", title, why, f"ip link set {other.name} nomaster")
        else:
            groups[_root(groups, one.master)] = _root(groups, other.master)
    for bridge in bridges:
        uplinks = [link.name for link in uplinks_of(bridge.name, observed)]
        if len(uplinks) > 1 and not bridge.stp:
            title = f"bridge {bridge.name} has {len(uplinks)} uplinks and STP off: {', '.join(uplinks)}"
            why = "when both lead to the same switch, every broadcast goes round for ever"
            mend = f"ip link set {bridge.name} type bridge stp_state 1    # or a bond of them"
            yield Finding("two-uplinks", "network", "warning", title, why, mend)


def _pairs(observed: Observed) -> Iterator[tuple[ObservedLink, ObservedLink]]:
    """Yield the veth pairs with both ends on bridges, each once."""
    ports = {link.name: link for link in observed.links if link.master and link.kind == "veth" and link.up}
    for name, link in ports.items():
        other = ports.get(link.peer)
        if other is not None and name < other.name:
            yield link, other


def _root(groups: dict[str, str], name: str) -> str:
    while groups.get(name, name) != name:
        name = groups[name]
    return name


def _ports(observed: Observed) -> Iterator[Finding]:
    tagged = [domain for domain in observed.domains if domain.metadata and uses_vlans(domain.metadata.identity)]
    if tagged:
        yield _hook(observed.hook)
    for domain in tagged:
        assert domain.metadata is not None
        for nic, want, have in live_ports(domain.metadata.identity, domain, observed):
            title = f"{domain.name}: port {nic.tap} has {have}"
            if want == have:
                yield Finding("port-vlans", "network", "ok", title)
            else:
                why = f"it should have {want}: the guest is not where it belongs"
                mend = f"vmhost apply SITE    # the file of site {domain.metadata.site}"
                yield Finding("port-vlans", "network", "error", title, why, mend)
        yield from _moved(domain.name, domain.metadata.identity.nics, domain.active, observed)


def _moved(guest: str, nics: tuple[NicIdentity, ...], active: bool, observed: Observed) -> Iterator[Finding]:
    for nic in nics if active else ():
        link = observed.link(nic.tap) if nic.bridge else None
        if link is not None and link.master != nic.bridge:
            title = f"{guest}: port {nic.tap} is on {link.master or 'no bridge'}, not on {nic.bridge}"
            why = "somebody moved it: the guest is not where it belongs"
            mend = f"ip link set {quote(nic.tap)} master {nic.bridge}; vmhost apply SITE"
            yield Finding("port-moved", "network", "error", title, why, mend)


def _hook(hook: ObservedHook) -> Finding:
    if not hook.installed:
        why = "guests in VLANs start without them, and reach nobody"
        return Finding("hook", "network", "error", "libvirt's hook is missing or old", why, "vmhost apply SITE")
    if not hook.active:
        why = "libvirt reads hooks when its daemon starts; guests run on meanwhile"
        mend = "systemctl restart libvirtd"
        return Finding("hook", "network", "error", "libvirt's daemon does not know the hook yet", why, mend)
    seen = "libvirt calls the hook" if hook.called else "the hook is there; no guest has started since"
    return Finding("hook", "network", "ok", seen)
