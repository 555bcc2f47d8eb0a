"""An existing definition with the fields that differ brought to the spec; what others put there stays."""

from __future__ import annotations

from collections.abc import Sequence

from vmhost.plan.compare import Delta, Pair, wanted_file
from vmhost.plan.disklimits import limits_of
from vmhost.plan.shape import mirrors
from vmhost.plan.tuning import defined
from vmhost.render import amend
from vmhost.render.domain import DiskPath
from vmhost.render.parse.domain import DISK_ALIAS
from vmhost.render.shape import flat
from vmhost.render.templates import Templates
from vmhost.render.tuning import with_disks_spread, with_tuning


def amended(pair: Pair, deltas: Sequence[Delta], templates: Templates) -> str:
    """Return the definition that mends every difference of ``deltas``, all of which wait for the next boot.

    :raises Refused: the definition is beyond what vmhost may judge, such as several NUMA cells.
    """
    xml = pair.domain.raw.xml
    fields = {delta.field for delta in deltas}
    spec = pair.spec
    if pair.tuning is not None and (mirrors(pair.applied) or mirrors(spec)):
        xml = flat(xml)
    if fields & {"cpus.count", "cpus.max"}:
        xml = amend.with_vcpus(xml, spec.cpus.count, spec.cpus.max or spec.cpus.count)
    if fields & {"memory.size", "memory.max"}:
        xml = amend.with_memory(xml, spec.memory.size, spec.memory.max or spec.memory.size)
    for name in dict.fromkeys(field.split(".")[1] for field in sorted(fields) if field.startswith("disks.")):
        xml = _with_disk(xml, name, pair, templates)
    for name in dict.fromkeys(field.split(".")[1] for field in sorted(fields) if field.startswith("nics.")):
        xml = _with_nic(xml, name, pair, templates)
    if pair.tuning is not None:
        xml = with_tuning(xml, defined(pair.tuning, spec.cpus))
        if spec.cpus.iothreads:
            xml = with_disks_spread(xml, spec.cpus.iothreads)
    return xml


def _with_disk(xml: str, disk_id: str, pair: Pair, templates: Templates) -> str:
    disk = next((disk for disk in pair.spec.disks if disk.id == disk_id), None)
    if disk is None:
        return amend.with_disk_removed(xml, disk_id)
    found = next((one for one in pair.domain.facts.disks if one.alias == f"{DISK_ALIAS}{disk_id}"), None)
    direct = pair.pools.direct(pair.pools.pool_of(disk))
    made = DiskPath(disk_id, wanted_file(pair, disk, found), direct=direct, limits=limits_of(disk))
    return amend.with_disk_added(xml, made, templates)


def _with_nic(xml: str, nic_id: str, pair: Pair, templates: Templates) -> str:
    nic = next((nic for nic in pair.identity.nics if nic.id == nic_id), None)
    if nic is None:
        return amend.with_nic_removed(xml, nic_id)
    return amend.with_nic_added(xml, nic, pair.site.networks[nic.network], templates)
