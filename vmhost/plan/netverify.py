"""The network from the wish to the wire: site, libvirt's definition, the kernel's VLAN table, the uplink."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from vmhost.model.identity import GuestMetadata, NicIdentity
from vmhost.model.netsteps import AttachUplink
from vmhost.model.observed import NicFacts, Observed, ObservedDomain, ObservedLink
from vmhost.model.reach import AccessPort
from vmhost.model.spec import GuestSpec, NetworkSpec, NicSpec, Site
from vmhost.model.steps import OpenAccess
from vmhost.model.vlans import PortVlans, format_vids, parse_vids
from vmhost.model.wire import NetDifference
from vmhost.plan.reach import lost_access
from vmhost.plan.uplinks import uplink_vlans

UPLINK_KINDS: Final = frozenset({"", "bond", "team", "vlan"})
"""Links by which a bridge reaches the wire: hardware, what bundles it, and a VLAN of it."""


@dataclass(frozen=True, slots=True)
class _View:
    """What is looked at, by name."""

    observed: Observed
    site: Site | None
    links: dict[str, ObservedLink] = field(default_factory=dict)

    def mend(self, site: str) -> str:
        """Return the command that brings guests of a site back."""
        path = self.site.path if self.site and self.site.name == site else ""
        return f"vmhost apply {path}" if path else f"vmhost apply SITE    # the file of site {site}"


def verify_network(observed: Observed, site: Site | None = None) -> tuple[NetDifference, ...]:
    """Return every difference between two neighbours on the way of each guest of ours to the wire; pure.

    The site is compared with what lies in the guests' metadata, that with libvirt's definition, that with the kernel's
    VLAN table, and the VLANs of guests with those of their bridge's uplinks. libvirt's own ``<vlan>`` is no difference.

    :param site: None: every guest of ours, from its metadata on; else the guests of this site only.
    """
    view = _View(observed, site, {link.name: link for link in observed.links})
    found: list[NetDifference] = []
    if site is not None:
        found += _from_site(site, view)
    for domain in observed.domains:
        metadata = domain.metadata
        if metadata and metadata.readable and (site is None or metadata.site == site.name):
            found += _from_metadata(domain, metadata, view)
    return (*found, *_access(view), *_uplinks(view))


def _from_site(site: Site, view: _View) -> Iterator[NetDifference]:
    for spec in site.guests:
        domain = view.observed.domain(spec.name)
        mend = view.mend(site.name)
        if domain is None or domain.metadata is None or domain.metadata.site != site.name:
            have = "absent" if domain is None else "foreign" if domain.metadata is None else domain.metadata.site
            yield NetDifference("libvirt", spec.name, "guest", site.name, have, mend)
            continue
        noted = {nic.id: nic for nic in domain.metadata.identity.nics}
        for nic in spec.nics:
            yield from _noted(spec, nic, site.networks[nic.network], noted.pop(nic.id or nic.network, None), mend)
        for name, left in noted.items():
            yield NetDifference("libvirt", spec.name, f"nics.{name}", "", left.network, mend)


def _noted(
    spec: GuestSpec, nic: NicSpec, network: NetworkSpec, noted: NicIdentity | None, mend: str
) -> Iterator[NetDifference]:
    """Yield where a guest's metadata does not say what its site says of a NIC."""
    name = f"nics.{nic.id or nic.network}"
    if noted is None:
        yield NetDifference("libvirt", spec.name, name, nic.network, "", mend)
        return
    # The number behind vlan: auto was chosen when the network was allocated.
    pvid = noted.pvid if network.vlan == "auto" and noted.pvid else network.vlan or 0
    in_vlan = bool(pvid or nic.tagged)
    pairs = (
        ("network", nic.network, noted.network),
        ("pvid", str(pvid or ""), str(noted.pvid or "")),
        ("tagged", _vids(nic.tagged), _vids(noted.tagged)),
        ("bridge", (network.bridge or "") if in_vlan else "", noted.bridge),
    )
    for key, want, have in pairs:
        if want != have:
            yield NetDifference("libvirt", spec.name, f"{name}.{key}", want, have, mend)


def _vids(text: str | None) -> str:
    return format_vids(parse_vids(text or ""))


def _from_metadata(domain: ObservedDomain, metadata: GuestMetadata, view: _View) -> Iterator[NetDifference]:
    """Yield where a guest's definition and its ports are not as its metadata says."""
    defined = {nic.alias: nic for nic in domain.facts.nics}
    mend = view.mend(metadata.site)
    for nic in metadata.identity.nics:
        if not nic.tap:
            continue
        name = f"nics.{nic.id}"
        found = defined.get(f"ua-nic-{nic.id}") or next((one for one in domain.facts.nics if one.tap == nic.tap), None)
        if found is None:
            yield NetDifference("libvirt", domain.name, name, nic.network, "", mend)
            continue
        yield from _defined(domain, nic, found, mend)
        if domain.active:
            yield from _in_kernel(domain, nic, found, view, mend)


def _defined(domain: ObservedDomain, nic: NicIdentity, found: NicFacts, mend: str) -> Iterator[NetDifference]:
    name = f"nics.{nic.id}"
    if nic.bridge and found.source != nic.bridge:
        yield NetDifference("libvirt", domain.name, f"{name}.bridge", nic.bridge, found.source, mend)
    if found.tap != nic.tap:
        yield NetDifference("libvirt", domain.name, f"{name}.tap", nic.tap, found.tap, mend)
    if nic.mac.lower() != found.mac.lower():
        yield NetDifference("libvirt", domain.name, f"{name}.mac", nic.mac, found.mac, mend)


def _in_kernel(
    domain: ObservedDomain, nic: NicIdentity, found: NicFacts, view: _View, mend: str
) -> Iterator[NetDifference]:
    """Yield where the port of a running guest is not as libvirt and its metadata say."""
    name, link = f"nics.{nic.id}.port", view.links.get(nic.tap)
    if link is None:
        plugged = domain.plugged(nic.tap)
        if plugged:
            yield NetDifference("kernel", domain.name, name, nic.tap, "gone", f"vmhost guest restart {domain.name}")
        else:
            yield NetDifference("libvirt", domain.name, name, nic.tap, "not plugged in before its next boot", mend)
        return
    bridge = nic.bridge or found.source
    if link.master != bridge:
        command = f"ip link set {nic.tap} master {bridge}"
        yield NetDifference("kernel", domain.name, f"{name}.bridge", bridge, link.master, command)
        return
    vlans, master = nic.vlans, view.links.get(bridge)
    if vlans is None:
        return
    if master is None or not master.vlan_filtering:
        command = f"ip link set {bridge} type bridge vlan_filtering 1"
        yield NetDifference("kernel", bridge, "vlan_filtering", "on", "off", command)
    if link.vlans != vlans:
        yield NetDifference("kernel", domain.name, f"{name}.vlans", str(vlans), str(link.vlans), mend)


def _access(view: _View) -> Iterator[NetDifference]:
    """Yield where the host's own way into a VLAN is gone, or leads elsewhere."""
    for step in lost_access(view.observed):
        assert isinstance(step.do, OpenAccess)
        way = AccessPort(step.do.bridge, step.do.vid, step.do.address)
        if view.site is None or view.site.name == step.do.site:
            mend = view.mend(step.do.site)
            yield NetDifference(
                "kernel", way.bridge, f"access port {way.port}", f"PVID {way.vid}", "gone or wrong", mend
            )


def uplinks_of(bridge: str, observed: Observed) -> tuple[ObservedLink, ...]:
    """Return the ports by which a bridge reaches the wire: what we attached, and what looks like it."""
    steps = (step for kept in observed.network.kept for step in kept.steps)
    ours = {step.link for step in steps if isinstance(step, AttachUplink) and step.bridge == bridge}
    return tuple(
        link for link in observed.links if link.master == bridge and (link.name in ours or link.kind in UPLINK_KINDS)
    )


def vids_in_use(observed: Observed) -> dict[str, frozenset[int]]:
    """Return the VLANs of our guests by the bridge that they are on."""
    found: dict[str, set[int]] = {}
    for domain in observed.domains:
        for nic in domain.metadata.identity.nics if domain.metadata else ():
            if vlans := nic.vlans:
                found.setdefault(nic.bridge, set()).update(vlans.untagged | vlans.tagged)
    return {bridge: frozenset(vids) for bridge, vids in found.items()}


def missing_vids(bridge: str, uplink: ObservedLink, vids: frozenset[int], links: dict[str, ObservedLink]) -> str:
    """Return the VLANs that do not leave a bridge by an uplink, as ``100,200-299``; without filtering all do."""
    master = links.get(bridge)
    if master is None or not master.vlan_filtering:
        return ""
    return format_vids(vids - _carried(uplink.vlans))


def add_vids(port: str, vids: str) -> str:
    """Return the command that lets VLANs, written ``100,200-299``, pass a port tagged."""
    return "; ".join(f"bridge vlan add dev {port} vid {part}" for part in vids.split(","))


def _carried(vlans: PortVlans) -> frozenset[int]:
    return vlans.untagged | vlans.tagged


def _uplinks(view: _View) -> Iterator[NetDifference]:
    wanted, used = _declared(view), vids_in_use(view.observed)
    for bridge in sorted({*used, *wanted}):
        if view.site is not None and bridge not in {network.bridge for network in view.site.networks.values()}:
            continue
        vids = used.get(bridge, frozenset()) | _promised(bridge, view)
        uplinks = {link.name: link for link in uplinks_of(bridge, view.observed)}
        named = wanted.get(bridge)
        link = view.links.get(named) if named else None
        if named and (link is None or link.master != bridge):
            have = "no link of that name" if link is None else f"port of {link.master or 'no bridge'}"
            yield NetDifference("uplink", bridge, "uplink", named, have, view.mend(view.site.name if view.site else ""))
        elif named and link is not None:
            uplinks[named] = link
        for name, uplink in uplinks.items():
            yield from _wire(name, uplink, bridge, vids, view)


def _promised(bridge: str, view: _View) -> frozenset[int]:
    """Return the VLANs that a site lets pass the uplink that it declares."""
    spec = view.site.bridges.get(bridge) if view.site else None
    if view.site is None or spec is None or not spec.uplink:
        return frozenset()
    return _carried(uplink_vlans(view.site, bridge, spec, view.observed))


def _declared(view: _View) -> dict[str, str]:
    return {name: spec.uplink for name, spec in view.site.bridges.items() if spec.uplink} if view.site else {}


def _wire(name: str, uplink: ObservedLink, bridge: str, vids: frozenset[int], view: _View) -> Iterator[NetDifference]:
    if lacking := missing_vids(bridge, uplink, vids, view.links):
        command = add_vids(name, lacking)
        want, have = format_vids(vids | _carried(uplink.vlans)), format_vids(_carried(uplink.vlans)) or "no VLAN"
        yield NetDifference("uplink", name, "vlans", want, have, command)
    if not (uplink.up and uplink.carrier):
        have = "no carrier" if uplink.up else "down"
        yield NetDifference("uplink", name, "state", "up", have, f"ip link set {name} up")
