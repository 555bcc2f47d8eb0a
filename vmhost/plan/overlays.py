"""Overlays that others laid over a guest's disks, as ``virsh snapshot-create-as`` and backup programs do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from shlex import quote

from vmhost.model.domains import DiskFacts, ObservedDomain
from vmhost.model.observed import ObservedPool
from vmhost.model.plan import Note
from vmhost.model.snapshots import is_overlay_of
from vmhost.plan.request import Refusal, Refused, raise_all
from vmhost.plan.running import live_facts
from vmhost.render.parse.domain import DISK_ALIAS


def backing_of(pools: Iterable[ObservedPool]) -> dict[str, str]:
    """Return what each volume lies on, by its path."""
    return {volume.path: volume.backing for pool in pools for volume in pool.volumes if volume.backing}


def chain_of(disk: DiskFacts, backing: Mapping[str, str]) -> tuple[str, ...]:
    """Return a disk's file and all that it lies on: as the files say, then as its definition says."""
    found = dict.fromkeys([path := disk.source])
    while (path := backing.get(path, "")) and path not in found:
        found[path] = None
    return tuple(dict.fromkeys((*found, *disk.below)))


def own_file(disk: DiskFacts, first: str, backing: Mapping[str, str]) -> str:
    """Return the newest file of a disk that vmhost made, which it is or lies on; empty: there is none.

    :param first: its file when it was made; the others are overlays of snapshots.
    """
    return next((path for path in chain_of(disk, backing) if path == first or is_overlay_of(path, first)), "")


def merge_command(guest: str, target: str, base: str) -> str:
    """Return what merges all that lies over a file into it while the guest runs; not further down, into its image."""
    return f"virsh blockcommit {quote(guest)} {target} --base {quote(base)} --active --pivot"


def overlay_notes(domain: ObservedDomain, firsts: Mapping[str, str], backing: Mapping[str, str]) -> Iterator[Note]:
    """Yield what is left alone of a guest's disks, whose first files are given by their ids."""
    running = live_disks(domain)
    for disk in domain.facts.disks:
        disk_id = disk.alias.removeprefix(DISK_ALIAS)
        own = own_file(disk, firsts[disk_id], backing) if disk_id in firsts else ""
        if own and own != disk.source:
            text = f"disk {disk_id} lies in {disk.source}, an overlay that others made over {own}; it is left alone"
            merge = merge_command(domain.name, disk.target, own)
            yield Note(domain.name, f"{text}; while the guest runs, {merge} merges it")
        elif own and (over := runs_over(disk, running, backing)):
            text = f"disk {disk_id} runs in {over}, an overlay over {own}, which is what its definition names"
            merge = merge_command(domain.name, disk.target, own)
            yield Note(domain.name, f"{text}: its next start goes without what was written since; {merge} merges it")


def runs_over(disk: DiskFacts, running: Mapping[str, DiskFacts], backing: Mapping[str, str]) -> str:
    """Return the file that a guest runs in where it lies on the one that the definition names; else nothing."""
    live = running.get(disk.alias)
    if live is None or live.source == disk.source:
        return ""
    return live.source if disk.source in chain_of(live, backing) else ""


def out_of_sight(domain: ObservedDomain, backing: Mapping[str, str]) -> Iterator[Refusal]:
    """Yield why a guest may not be stopped: disks run in overlays that its next start would not know of."""
    running = live_disks(domain)
    for disk in domain.facts.disks:
        if disk.alias.startswith(DISK_ALIAS) and (over := runs_over(disk, running, backing)):
            text = (
                f"disk {disk.alias.removeprefix(DISK_ALIAS)} runs in {over}, which its definition does not name: "
                "the next start would go without what was written since"
            )
            yield Refusal(domain.name, text, merge_command(domain.name, disk.target, disk.source), Refused)


def refuse_out_of_sight(domain: ObservedDomain, pools: Iterable[ObservedPool]) -> None:
    """Return, or raise when a guest may not be stopped. :raises Refused: it would start without what it wrote."""
    raise_all(list(out_of_sight(domain, backing_of(pools))))


def live_disks(domain: ObservedDomain) -> dict[str, DiskFacts]:
    """Return the disks that a guest runs with by their aliases; none when it does not run."""
    return {disk.alias: disk for disk in live_facts(domain.raw.live_xml).disks} if domain.raw.live_xml else {}
