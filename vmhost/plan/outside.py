"""What somebody changed past vmhost: a guest against the spec that was applied to it last, without its site file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from vmhost.model.observed import Observed, ObservedDomain, ObservedVolume
from vmhost.model.plan import Difference
from vmhost.model.spec import NetworkSpec, Site
from vmhost.plan.applied import applied_spec
from vmhost.plan.compare import Pair, compare
from vmhost.plan.storage import Pools

__all__ = ["applied_spec", "edited", "networks_of", "volumes_by_path"]

STATE = "state"
"""A guest that somebody stopped is shown as stopped; that is no drift of its definition."""


def volumes_by_path(observed: Observed) -> dict[str, ObservedVolume]:
    """Return all volumes of all pools by path, for :func:`edited`."""
    return {volume.path: volume for pool in observed.pools for volume in pool.volumes}


def edited(
    domain: ObservedDomain, observed: Observed, volumes: Mapping[str, ObservedVolume], *, disks: str
) -> tuple[Difference, ...]:
    """Return where a guest no longer is what was applied; nothing for a foreign one.

    :param volumes: see :func:`volumes_by_path`; looked up here, so that many guests cost no more than their own disks.
    :param disks: the directory of the pool that vmhost makes.
    """
    spec = applied_spec(domain)
    if spec is None or domain.metadata is None:
        return ()
    mine = list(_volumes_of(domain, volumes))
    around = replace(
        observed,
        domains=(domain,),
        pools=tuple(replace(pool, volumes=_of(pool.name, mine)) for pool in observed.pools),
    )
    site = Site(name=domain.metadata.site, networks=networks_of(domain))
    pair = Pair(spec, domain.metadata.identity, domain, site, around, Pools(site, around, disks))
    deltas = (delta for delta in compare(pair) if delta.field != STATE)
    return tuple(delta.difference(domain.name) for delta in deltas if delta.outside)


def networks_of(domain: ObservedDomain) -> dict[str, NetworkSpec]:
    """Return the networks of a guest's NICs as far as its domain knows them."""
    sources = {nic.alias.removeprefix("ua-nic-"): nic.source for nic in domain.facts.nics}
    found: dict[str, NetworkSpec] = {}
    for nic in domain.metadata.identity.nics if domain.metadata else ():
        if nic.tap:
            found[nic.network] = NetworkSpec(bridge=sources.get(nic.id) or "unknown")
        else:
            found[nic.network] = NetworkSpec(type="user")
    return found


def _volumes_of(domain: ObservedDomain, volumes: Mapping[str, ObservedVolume]) -> Iterator[ObservedVolume]:
    """Yield the volumes of a guest's disks and all that they lie on, each once."""
    seen = set[str]()
    for path in (disk.source for disk in domain.facts.disks):
        while path in volumes and path not in seen:
            seen.add(path)
            yield volumes[path]
            path = volumes[path].backing


def _of(pool: str, volumes: Iterable[ObservedVolume]) -> tuple[ObservedVolume, ...]:
    return tuple(volume for volume in volumes if volume.pool == pool)
