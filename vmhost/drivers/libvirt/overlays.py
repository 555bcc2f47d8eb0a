"""Disks of running domains that go on in other files, and files that are merged into those below them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final
from xml.etree.ElementTree import Element, SubElement, fromstring, tostring

import libvirt

from vmhost.drivers.libvirt.errors import code_is
from vmhost.model.errors import DriverError

Domain = Any  # libvirt.virDomain

_SNAPSHOT: Final = (
    libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
)
_COMMITS: Final = frozenset({libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_COMMIT, libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT})
_STALLED: Final = 120.0
"""Seconds in which a job has to get on."""

_FIRST_LOOK, _LONGEST_PAUSE = 0.0005, 0.25


def snapshot(domain: Domain, files: Mapping[str, str]) -> None:
    """Let disks go on in files that are there, all at one instant; disks that are not named are left out."""
    disks = Element("disks")
    for target in _targets(domain):
        path = files.get(target, "")
        disk = SubElement(disks, "disk", name=target, snapshot="external" if path else "no")
        if path:
            SubElement(disk, "driver", type="qcow2")
            SubElement(disk, "source", file=path)
    root = Element("domainsnapshot")
    root.append(disks)
    domain.snapshotCreateXML(tostring(root, encoding="unicode"), _SNAPSHOT)


def commit(domain: Domain, target: str, top: str, base: str) -> None:
    """Merge ``top`` into ``base`` and wait for it; a job that is under way on this disk is gone on with.

    :raises DriverError: it stopped, or does something else.
    """
    active = _source(domain, target) == top
    job = domain.blockJobInfo(target, 0)
    if job and job["type"] not in _COMMITS:
        text = f"another job is at work on disk {target}"
        raise DriverError(text, subject=domain.name(), hint=f"virsh blockjob {domain.name()} {target}", retryable=True)
    if not job:
        flags = libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE if active else 0
        domain.blockCommit(target, base, None if active else top, 0, flags)
    _await(domain, target, active=active)


def _await(domain: Domain, target: str, *, active: bool) -> None:
    """Wait for the end of a job; when all of an active file is merged, let the guest write to the one below."""
    pause, seen, since = _FIRST_LOOK, -1, time.monotonic()
    while job := domain.blockJobInfo(target, 0):
        if active and job["cur"] == job["end"] and _pivoted(domain, target):
            return
        if job["cur"] != seen:
            seen, since = job["cur"], time.monotonic()
        elif time.monotonic() - since > _STALLED:
            text = f"the merging of disk {target} does not get on: {job['cur']} of {job['end']} bytes"
            hint = f"virsh blockjob {domain.name()} {target}"
            raise DriverError(text, subject=domain.name(), hint=hint, retryable=True)
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)
    if active:
        text = f"the merging of disk {target} ended without its last step; the guest runs on as before"
        raise DriverError(text, subject=domain.name(), hint="vmhost recover", retryable=True)


def _pivoted(domain: Domain, target: str) -> bool:
    """Do the last step; False when QEMU is not ready for it yet."""
    try:
        domain.blockJobAbort(target, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
    except libvirt.libvirtError as error:
        if code_is(error, libvirt.VIR_ERR_BLOCK_COPY_ACTIVE):
            return False
        raise
    return True


def _targets(domain: Domain) -> list[str]:
    root = fromstring(domain.XMLDesc(0))  # noqa: S314 - libvirt's own
    return [target.get("dev", "") for target in root.iterfind("devices/disk/target")]


def _source(domain: Domain, target: str) -> str:
    root = fromstring(domain.XMLDesc(0))  # noqa: S314 - libvirt's own
    for disk in root.iterfind("devices/disk"):
        found, source = disk.find("target"), disk.find("source")
        if found is not None and found.get("dev") == target and source is not None:
            return source.get("file", "")
    return ""
