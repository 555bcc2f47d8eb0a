"""One bulk read of the whole host, parsed into values."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vmhost.model.domains import ObservedDomain, RawDomain
from vmhost.render.parse.domain import parse_domain
from vmhost.render.parse.metadata import parse_copied, parse_drill, parse_metadata
from vmhost.render.parse.reading import look_into

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vmhost.model.network import ObservedNetwork
    from vmhost.model.observed import Observed, ObservedGuests, ObservedHost, ObservedLink, ObservedPool
    from vmhost.model.plan import Plan
    from vmhost.model.topology import Topology
    from vmhost.ports import Hypervisor, Ports, RawHost, RawPool


def observe(ports: Ports, before: Observed | None = None) -> Observed:
    """Return the host as it is now.

    :param before: an older look at the same host; domains whose definitions are as they were are not parsed again.
    :raises Unreachable: libvirt does not answer; :raises PermissionDenied: it does not let us read.
    """
    from vmhost.model.observed import Observed
    from vmhost.render.parse.nft import parse_guards

    libvirt = ports.hypervisor.look()
    with ports.links.session():
        links = ports.links.links()
        neighbours = ports.links.neighbours()
        network = observe_network(ports, links)
    images, damaged = ports.images.list(), ports.images.damaged()
    raw = libvirt()
    assert raw.host is not None
    return Observed(
        host=_host(raw.host),
        domains=_domains(raw.domains, before),
        pools=_pools(raw.pools),
        links=links,
        neighbours=neighbours,
        images=images,
        damaged_images=damaged,
        hook=ports.hook.state(),
        network=network,
        namespaces=ports.links.namespaces(),
        topology=_topology(raw.host, ports),
        reservations=ports.reservations.read(),
        guards=parse_guards(ports.packet.table()),
        starting=ports.locks.starting(),
    )


def observe_guest(hypervisor: Hypervisor, name: str, before: ObservedGuests | None = None) -> ObservedGuests:
    """Return the guest of a name or UUID, if it is there, and of the pools the disks that it writes, those that it runs
    with and those of its definition; ``before`` as above.

    For who changes nothing else, and asks nobody else: it costs the same beside a hundred others.
    """
    from vmhost.model.observed import ObservedGuests

    domains = _domains(hypervisor.named(name), before)
    texts = [text for domain in domains for text in (domain.raw.xml, domain.raw.live_xml) if text]
    disks = [disk for text in texts for disk in parse_domain(text).disks]
    paths = {disk.source for disk in disks if disk.source and not disk.readonly}
    return ObservedGuests(domains, _pools(hypervisor.holding(sorted(paths))))


def observe_guests(hypervisor: Hypervisor, before: ObservedGuests | None = None) -> ObservedGuests:
    """Return all guests, ours and foreign, and all pools: who has which file, and what lies on what."""
    from vmhost.model.observed import ObservedGuests

    return ObservedGuests(observe_domains(hypervisor, before), observe_pools(hypervisor))


def observe_again(ports: Ports, before: Observed, plan: Plan) -> Observed:
    """Return the host after the steps of a plan: of guests and disks those that it touches, and all links.

    What else there is is as before, so that one guest more costs the same beside a hundred others.

    :param before: a look at the same host, under the lock that the steps were done under.
    """
    from vmhost.render.parse.nft import parse_guards

    uuids = {*plan.uuids, *touched(plan, before)}
    raw = ports.hypervisor.look_at(sorted(uuids))
    with ports.links.session():
        links = ports.links.links()
        network = observe_network(ports, links) if plan.changes_network else before.network
    seen = _domains(raw.domains, before)
    others = (domain for domain in before.domains if domain.uuid not in uuids)
    return replace(
        before,
        domains=tuple(sorted((*others, *seen), key=lambda domain: domain.name)),
        pools=_with_disks_of(seen, before.pools, _pools(raw.pools)),
        links=links,
        hook=ports.hook.state(),
        network=network,
        reservations=ports.reservations.read(),
        guards=parse_guards(ports.packet.table()),
    )


def touched(plan: Plan, observed: Observed) -> frozenset[str]:
    """Return the domains (UUIDs) among those that are there that a plan is about, be it by a volume of theirs alone."""
    return frozenset(one.uuid for one in observed.domains if one.uuid in plan.uuids or one.name in plan.guests)


def _with_disks_of(
    seen: Iterable[ObservedDomain], before: Iterable[ObservedPool], pools: Iterable[ObservedPool]
) -> tuple[ObservedPool, ...]:
    """Return the pools of before in which the disks of these domains are as they were found in ``pools``."""
    disks = {disk.source for domain in seen for disk in domain.facts.disks}
    kept = (replace(pool, volumes=tuple(one for one in pool.volumes if one.path not in disks)) for pool in before)
    merged = {pool.name: pool for pool in kept}
    for pool in pools:
        others = merged[pool.name].volumes if pool.name in merged else ()
        merged[pool.name] = replace(pool, volumes=(*others, *pool.volumes))
    return tuple(merged.values())


def observe_network(ports: Ports, links: tuple[ObservedLink, ...]) -> ObservedNetwork:
    """Return what belongs to the host's network beside its links."""
    candidates = [(link.index, link.name) for link in links if not link.alias and link.kind not in ("bridge", "tun")]
    return replace(ports.keeper.state(), routes=ports.links.routes(), managers=ports.keeper.managers(candidates))


def _topology(raw: RawHost, ports: Ports) -> Topology:
    from vmhost.render.parse.topology import parse_topology

    return parse_topology(raw.capabilities, ports.kernel.processors() if raw.local else {})


def observe_host(hypervisor: Hypervisor) -> ObservedHost:
    """Return the hypervisor itself."""
    return _host(hypervisor.host())


def observe_domains(hypervisor: Hypervisor, before: ObservedGuests | None = None) -> tuple[ObservedDomain, ...]:
    """Return all domains, ours and foreign, by name; ``before`` as for :func:`observe`."""
    return _domains(hypervisor.domains(), before)


def _domains(found: Iterable[RawDomain], before: ObservedGuests | None) -> tuple[ObservedDomain, ...]:
    known = {domain.uuid: domain for domain in before.domains} if before else {}
    domains = (_parsed_once(raw, known.get(raw.uuid)) for raw in found)
    return tuple(sorted(domains, key=lambda domain: domain.name))


def _parsed_once(raw: RawDomain, before: ObservedDomain | None) -> ObservedDomain:
    if before is None or before.raw.xml != raw.xml:
        return parsed(raw)
    return before if before.raw == raw else replace(before, raw=raw)


def parsed(raw: RawDomain) -> ObservedDomain:
    """Return a raw domain with its facts and our metadata."""
    root = look_into(raw.xml)
    return ObservedDomain(raw, parse_domain(root), parse_metadata(root), parse_drill(root), parse_copied(root))


def observe_pools(hypervisor: Hypervisor) -> tuple[ObservedPool, ...]:
    """Return all storage pools with their volumes."""
    return _pools(hypervisor.pools())


def _pools(found: Iterable[RawPool]) -> tuple[ObservedPool, ...]:
    from vmhost.render.parse.storage import parse_pool

    return tuple(parse_pool(pool.xml, active=pool.active, volumes=pool.volumes) for pool in found)


def _host(raw: RawHost) -> ObservedHost:
    from vmhost.model.observed import ObservedHost
    from vmhost.render.parse.capabilities import parse_capabilities, parse_domain_capabilities

    facts = parse_capabilities(raw.capabilities)
    domain = parse_domain_capabilities(raw.domain_capabilities)
    return ObservedHost(
        uri=raw.uri,
        driver=raw.driver,
        hostname=raw.hostname,
        libvirt_version=raw.libvirt_version,
        hypervisor_version=raw.hypervisor_version,
        architecture=facts.architecture,
        cpus=facts.cpus,
        memory=facts.memory,
        kvm=raw.kvm,
        local=raw.local,
        privileged=raw.privileged,
        emulator=domain.emulator,
        machines=domain.machines,
        uefi=domain.uefi,
    )
