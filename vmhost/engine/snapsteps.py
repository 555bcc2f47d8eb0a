"""The effect of steps about snapshots, in one ``match``, and merging, whether the guest runs or not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from vmhost.engine.power import refuse_running
from vmhost.model.errors import Absent, DriverError
from vmhost.model.snapshots import SNAPSHOTS
from vmhost.model.snapsteps import (
    CheckNvram,
    DiskStep,
    KeepNvram,
    KeepSnapshots,
    MakeOverlay,
    MergeOverlays,
    Overlay,
    PutNvram,
    SnapshotDisks,
)
from vmhost.ports import Ports
from vmhost.render.parse.domain import parse_domain
from vmhost.render.snapshots import with_sources


def execute_on_disks(step: DiskStep, ports: Ports) -> None:
    """Do one step. :raises DriverError: it failed; but for merging nothing was changed."""
    hypervisor, files = ports.hypervisor, ports.files
    match step:
        case MakeOverlay(_, _, path, base, capacity):
            files.make_overlay(path, base, capacity)
        case SnapshotDisks(uuid, _, overlays):
            hypervisor.snapshot_disks(uuid, {overlay.target: overlay.top for overlay in overlays})
        case MergeOverlays(uuid, _, overlays):
            for overlay in overlays:
                _merge(uuid, overlay, ports)
        case KeepSnapshots(uuid, _, xml):
            hypervisor.set_metadata(uuid, xml, SNAPSHOTS)
        case KeepNvram(uuid, _, path):
            files.keep_nvram(hypervisor.domain(uuid), path)
        case CheckNvram(uuid, name, path):
            if not files.same_nvram(hypervisor.domain(uuid), path):
                text = "its UEFI variables changed at the very moment of the snapshot"
                raise DriverError(text, subject=name, hint=f"vmhost snapshot create {name}", retryable=True)
        case PutNvram(uuid, name, path):
            refuse_running(uuid, name, "UEFI variables", ports)
            files.put_nvram(hypervisor.domain(uuid), path)
        case _:
            assert_never(step)


def _merge(uuid: str, overlay: Overlay, ports: Ports) -> None:
    """Merge one overlay if it is not merged yet: what an earlier try has done is seen from what lies on what.

    :raises DriverError: it is not merged; no write of the guest is lost.
    """
    if overlay.in_use:
        _merge_in_use(uuid, overlay, ports)
    else:
        _commit(overlay, ports)
    for path in overlay.above:
        if ports.files.backing(path) == overlay.top:
            ports.files.rebase(path, overlay.base)


def _merge_in_use(uuid: str, overlay: Overlay, ports: Ports) -> None:
    """Merge a file that the guest has, or would have, open."""
    if live := ports.hypervisor.live_xml(uuid):
        if _has(live, overlay, ports):
            try:
                ports.hypervisor.commit_disk(uuid, overlay.target, overlay.top, overlay.base)
            except Absent:
                _merge_in_use(uuid, overlay, ports)  # it ended meanwhile
            else:
                _see_merged(uuid, overlay, ports)
        return
    domain = ports.hypervisor.domain(uuid)
    chain = _chain(domain.xml, overlay.target, ports)
    if overlay.top not in chain:
        return
    if chain[0] == overlay.top:
        _commit(overlay, ports)
        ports.hypervisor.define(with_sources(domain.xml, {overlay.target: overlay.base}))
        return
    # libvirt may have noted in the definition what lies below, and would take its word for it at the next start
    ports.hypervisor.define(with_sources(domain.xml, {overlay.target: chain[0]}))
    _commit(overlay, ports)
    ports.files.rebase(chain[chain.index(overlay.top) - 1], overlay.base)


def _see_merged(uuid: str, overlay: Overlay, ports: Ports) -> None:
    """Look whether a job that has ended has done its work. :raises DriverError: it has not; nothing is lost."""
    live = ports.hypervisor.live_xml(uuid)
    if live and _has(live, overlay, ports):
        text = f"the merging of {overlay.top} ended before all was merged; the guest runs on as before"
        raise DriverError(text, subject=parse_domain(live).name, hint="vmhost recover", retryable=True)


def _commit(overlay: Overlay, ports: Ports) -> None:
    if ports.files.backing(overlay.top) == overlay.base:
        ports.files.commit(overlay.top, overlay.base)


def _has(xml: str, overlay: Overlay, ports: Ports) -> bool:
    """Whether a disk is an overlay, or lies on it: it does not from the file on that the overlay lies on itself."""
    for path in _files(xml, overlay.target, ports):
        if path in (overlay.top, overlay.base):
            return path == overlay.top
    return False


def _chain(xml: str, target: str, ports: Ports) -> list[str]:
    """Return the file of a disk and all that it lies on, as the files themselves say."""
    return list(_files(xml, target, ports))


def _files(xml: str, target: str, ports: Ports) -> Iterator[str]:
    path = next((disk.source for disk in parse_domain(xml).disks if disk.target == target), "")
    seen: set[str] = set()
    while path and path not in seen:
        yield path
        seen.add(path)
        path = ports.files.backing(path)
