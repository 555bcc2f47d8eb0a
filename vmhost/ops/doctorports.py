"""The examination of what is reserved, of addresses, and of what holds at the ports of guests."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote

from vmhost.model.observed import Observed
from vmhost.model.outcome import Finding
from vmhost.plan.addresses import realm_of_nic
from vmhost.plan.guards import live_guards
from vmhost.plan.reserve import in_range, in_words, usage


def examine_ports(observed: Observed, now: str) -> Iterator[Finding]:
    """Yield findings; ``now`` is ISO 8601 in UTC."""
    yield from _reservations(observed, now)
    yield from _addresses(observed)
    yield from _guards(observed)


def _reservations(observed: Observed, now: str) -> Iterator[Finding]:
    """Yield what is reserved and not used, used and not reserved, and given twice."""
    used = usage(observed.reservations, observed.domains, observed.links, now)
    ranges = {item.pool for item in used.reserved.values() if item.pool}
    for vid, item in sorted(used.reserved.items()):
        others = [place for place, vids in used.networks.items() if vid in vids and not item.is_of(*place)]
        if item.held and item.site and others:
            site, network = others[0]
            title = f"VLAN {vid} of {in_words(item)} is used by network {network} of site {site}, too"
            why = "guests that should be kept apart hear each other"
            yield Finding(
                "vlan-twice", "network", "error", title, why, f"vmhost apply SITE    # the file of site {site}"
            )
        elif item.held and vid not in used.guests and vid not in used.ports:
            title = f"VLAN {vid} is reserved for {in_words(item)}, and nobody is in it"
            yield Finding("vlan-idle", "network", "info", title, "", f"vmhost net vlan release {vid}")
    for vid, ports in sorted(used.ports.items()):
        if vid not in used.reserved and any(in_range(vid, pool) for pool in ranges):
            title = f"VLAN {vid}, which vmhost may give to a network, is carried by {', '.join(ports)}"
            why = "it is passed over as long as that is so"
            yield Finding("vlan-foreign", "network", "warning", title, why, f"bridge vlan show dev {ports[0]}")


def _guards(observed: Observed) -> Iterator[Finding]:
    """Yield ports that are not guarded or isolated as they should be, and guards that nobody is behind."""
    taps: set[str] = set()
    for domain in observed.domains:
        for port in live_guards(domain.metadata.identity, domain, observed) if domain.metadata else ():
            taps.add(port.nic.tap)
            assert domain.metadata is not None
            mend = f"vmhost apply SITE    # the file of site {domain.metadata.site}"
            if not port.guarded:
                title = f"{domain.name}: port {port.nic.tap} is not guarded as it should be"
                why = "somebody changed the packet filter; the guest may speak in the name of others"
                yield Finding("guard", "network", "error", title, why, mend)
            if port.link.isolated != port.nic.isolated:
                is_so = "is" if port.link.isolated else "is not"
                title, why = f"{domain.name}: port {port.nic.tap} {is_so} isolated", "its metadata says otherwise"
                yield Finding("port-isolation", "network", "error", title, why, mend)
    for one in observed.guards:
        if one.port not in taps and observed.link(one.port) is None:
            title, why = f"port {one.port} is guarded and not there", "its guest ended while libvirt's daemon was down"
            yield Finding("guard-left", "network", "info", title, why)


def _addresses(observed: Observed) -> Iterator[Finding]:
    """Yield addresses that two guests have, as a revert to old metadata may bring about."""
    holders: dict[tuple[str, str], list[str]] = {}
    for domain in observed.domains:
        for nic in domain.metadata.identity.nics if domain.metadata else ():
            if nic.address:
                holders.setdefault((realm_of_nic(nic), nic.address.partition("/")[0]), []).append(domain.name)
    for (_, address), names in sorted(holders.items()):
        if len(names) > 1:
            why = "whoever talks to it reaches the one or the other"
            mend = f"vmhost guest show {quote(names[-1])}"
            title = f"{address} belongs to {' and '.join(names)}"
            yield Finding("address-twice", "network", "error", title, why, mend)
