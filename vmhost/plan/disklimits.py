"""Limits of disks: what a site says, and the steps that make it so in the definition and in what runs."""

from __future__ import annotations

from collections.abc import Iterator

from vmhost.model.disklimits import UNLIMITED, DiskLimits, SetDiskLimits
from vmhost.model.observed import DiskFacts, ObservedDomain
from vmhost.model.plan import Change, Planned
from vmhost.model.spec import DiskSpec, GuestSpec
from vmhost.model.units import format_size
from vmhost.plan.running import live_facts


def limits_of(disk: DiskSpec) -> DiskLimits:
    """Return the limits of a disk as libvirt has them."""
    limits = disk.limits
    if limits is None:
        return UNLIMITED
    return DiskLimits(
        total_bytes_sec=limits.rate or 0,
        read_bytes_sec=limits.read_rate or 0,
        write_bytes_sec=limits.write_rate or 0,
        total_iops_sec=limits.iops or 0,
        read_iops_sec=limits.read_iops or 0,
        write_iops_sec=limits.write_iops or 0,
    )


def limit_differences(disk: DiskSpec, domain: ObservedDomain) -> tuple[str, str] | None:
    """Return what the limits of a disk should be and what they are, where its definition or what runs differs."""
    want = limits_of(disk)
    for found, where in _everywhere(disk, domain):
        if found.limits != want:
            return in_words(want), in_words(found.limits) + where
    return None


def set_disk_limits(spec: GuestSpec, domain: ObservedDomain) -> Iterator[Planned]:
    """Yield the steps that give disks of a guest other limits."""
    for disk in spec.disks:
        want = limits_of(disk)
        found = [facts for facts, _ in _everywhere(disk, domain)]
        if all(facts.limits == want for facts in found):
            continue
        target = found[0].target
        old = found[0].limits  # the definition's: one that was set while it runs is of that run only
        do, undo = SetDiskLimits(domain.uuid, target, want), SetDiskLimits(domain.uuid, target, old)
        yield Planned(do, undo, Change.LIVE, spec.name, f"{spec.name}: limits of disk {disk.id}: {in_words(want)}")


def _everywhere(disk: DiskSpec, domain: ObservedDomain) -> Iterator[tuple[DiskFacts, str]]:
    """Yield the disk as it is defined and as it runs; one that is yet to be attached gets its limits with the rest."""
    alias = f"ua-disk-{disk.id}"
    yield from ((facts, "") for facts in domain.facts.disks if facts.alias == alias)
    if domain.raw.live_xml:
        live = live_facts(domain.raw.live_xml).disks
        yield from ((facts, " while it runs") for facts in live if facts.alias == alias)


def in_words(limits: DiskLimits) -> str:
    """Return limits as people read them."""
    words = []
    for name, value in limits.named:
        if value:
            way = name.partition("_")[0].replace("total", "").replace("read", "read ").replace("write", "write ")
            words.append(f"{way}{format_size(value)}/s" if "bytes" in name else f"{way}{value} IOPS")
    return ", ".join(words) or "none"
