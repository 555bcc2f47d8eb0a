"""Backup jobs, checkpoints and their bitmaps, as libvirt 9.0 and QEMU have them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import libvirt
from lxml import etree

from vmhost.drivers.libvirt.connection import Connection, Handle
from vmhost.drivers.libvirt.errors import code_is, translated
from vmhost.model.errors import Absent, AlreadyThere, DriverError, Unreachable
from vmhost.model.points import BackupProgress, Bitmap, Checkpoint, DiskSize, Tracking

Domain = Any  # libvirt.virDomain

_REUSE: Final = libvirt.VIR_DOMAIN_BACKUP_BEGIN_REUSE_EXTERNAL
_METADATA: Final = libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY
_COMPLETED: Final = libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED | libvirt.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED
_OPERATION: Final = libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP
_NONE, _COMPLETE = libvirt.VIR_DOMAIN_JOB_NONE, libvirt.VIR_DOMAIN_JOB_COMPLETED
_PATIENCE: Final = 30.0
_REMAINS: Final = "backup-"
_AT_WORK: Final = ("created", "running", "paused")
_LOOK_AGAIN: Final = 0.01


class BackupJobs:
    """Backup jobs and checkpoints of one hypervisor."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def tracking(self, uuid: str) -> Tracking:
        """Return what a guest's backups rest on."""
        return self._connection.read(lambda handle: tracking(handle.lookupByUUIDString(uuid)), uuid)

    def progress(self, uuid: str) -> BackupProgress:
        """Return how far a guest's job is."""
        return self._connection.read(lambda handle: progress(handle.lookupByUUIDString(uuid)), uuid)

    def begin(self, uuid: str, xml: str, checkpoint_xml: str, *, reuse: bool, rate: int) -> None:
        """Begin a job. :raises AlreadyThere: one runs."""
        self._change(uuid, lambda domain: begin(domain, xml, checkpoint_xml, reuse=reuse, rate=rate))

    def end(self, uuid: str) -> None:
        """End the job. :raises Absent: there is none."""
        self._change(uuid, end)

    def drop(self, uuid: str, name: str, *, lost: bool) -> None:
        """Drop a checkpoint. :raises Absent: there is none of that name."""
        self._change(uuid, lambda domain: drop(domain, name, lost=lost))

    def drop_bitmap(self, uuid: str, source: str, name: str) -> None:
        """Drop a bitmap. :raises Absent: there is none of that name."""
        self._change(uuid, lambda domain: drop_bitmap(domain, source, name))

    def _change(self, uuid: str, act: Callable[[Domain], None]) -> None:
        def call(handle: Handle) -> None:
            domain = handle.lookupByUUIDString(uuid)
            with translated(domain.name()):
                act(domain)

        self._connection.change(call, uuid)


def tracking(domain: Domain) -> Tracking:
    """Return what a domain has that backups rest on."""
    active = bool(domain.isActive())
    return Tracking(
        checkpoints=tuple(_checkpoint(one) for one in domain.listAllCheckpoints(0)),
        bitmaps=_bitmaps(domain) if active else (),
        sizes=_sizes(domain),
        job=_job(domain) if active else "",
    )


def begin(domain: Domain, xml: str, checkpoint_xml: str, *, reuse: bool, rate: int) -> None:
    """Begin a job, and slow down what it writes of each disk (``rate``, 0: no limit).

    :raises AlreadyThere: one runs.
    """
    if _job(domain):
        raise AlreadyThere("a backup job runs already", subject=domain.name(), hint=f"virsh domjobinfo {domain.name()}")
    _drop_remains(domain)
    domain.backupBegin(xml, checkpoint_xml or None, _REUSE if reuse else 0)
    if rate:
        _slow_down(domain, rate)


def progress(domain: Domain) -> BackupProgress:
    """Return how far the job is, or how the last one ended."""
    if not domain.isActive():
        return BackupProgress("failed", error="the guest was shut off")
    found = domain.jobStats(0)
    if found.get("type", _NONE) != _NONE:
        if found.get("operation") != _OPERATION:
            return BackupProgress("running")
        return BackupProgress("running", int(found.get("disk_processed", 0)), int(found.get("disk_total", 0)))
    found = domain.jobStats(_COMPLETED)
    if found.get("operation") != _OPERATION:
        return BackupProgress("none")
    done = int(found.get("disk_processed", 0))
    if found.get("type") == _COMPLETE and found.get("success", 1):
        return BackupProgress("done", done, done)
    return BackupProgress("failed", done, done, str(found.get("errmsg") or "the job was ended"))


def end(domain: Domain) -> None:
    """End the job and wait until QEMU has let go of everything. :raises Absent: there is none."""
    if not _job(domain):
        raise Absent("no backup job runs", subject=domain.name(), hint=f"virsh domjobinfo {domain.name()}")
    try:
        domain.abortJob()
    except libvirt.libvirtError:
        if _job(domain):
            raise
    deadline = time.monotonic() + _PATIENCE
    while domain.isActive() and _job(domain):
        if time.monotonic() >= deadline:
            raise Unreachable(f"the backup job did not end in {_PATIENCE:g} s", subject=domain.name(), retryable=True)
        time.sleep(_LOOK_AGAIN)


def drop(domain: Domain, name: str, *, lost: bool) -> None:
    """Drop a checkpoint; libvirt merges its bitmaps into those of the one before. :raises Absent: there is none."""
    try:
        checkpoint = domain.checkpointLookupByName(name, 0)
    except libvirt.libvirtError as error:
        if code_is(error, libvirt.VIR_ERR_NO_DOMAIN_CHECKPOINT):
            raise Absent("there is no such checkpoint", subject=name, hint="vmhost backup list") from error
        raise
    if domain.isActive() and not lost:
        try:
            checkpoint.delete(0)
        except libvirt.libvirtError:
            if not _has_lost(domain, checkpoint, name):
                raise
            _drop_rest(domain, name)
        else:
            return
    # Of bitmaps that are lost, and of a guest that is shut off, only libvirt's record can go.
    checkpoint.delete(_METADATA)


def _has_lost(domain: Domain, checkpoint: Any, name: str) -> bool:
    """Whether a disk of a checkpoint has its bitmap nowhere, nor what it lies on: libvirt would not drop the others."""
    holding = {bitmap.source for bitmap in _bitmaps(domain) if bitmap.name == name}
    covered = etree.fromstring(checkpoint.getXMLDesc(0)).iterfind("disks/disk[@checkpoint='bitmap']")
    targets = {disk.get("name") for disk in covered}
    disks = etree.fromstring(domain.XMLDesc(0)).iterfind("devices/disk[target]")
    chains = ({source.get("file") for source in disk.iter("source")} for disk in disks if _target(disk) in targets)
    return any(holding.isdisjoint(chain) for chain in chains)


def _target(disk: Any) -> str:
    return str(disk.find("target").get("dev"))


def _drop_rest(domain: Domain, name: str) -> None:
    """Drop the bitmaps that are left of a checkpoint; the next run tries again what cannot go now."""
    for node in _nodes(domain):
        if any(bitmap["name"] == name for bitmap in _named(node)):
            with suppress(DriverError):
                _ask(domain, "block-dirty-bitmap-remove", node=node["node-name"], name=name)


def drop_bitmap(domain: Domain, source: str, name: str) -> None:
    """Drop a bitmap that libvirt does not know. :raises Absent: there is none of that name."""
    nodes = [node for node in _nodes(domain) if node.get("file") == source]
    node = next((node for node in nodes if name in (one["name"] for one in _named(node))), None)
    if node is None:
        raise Absent("there is no such bitmap", subject=name, hint="vmhost backup list")
    _ask(domain, "block-dirty-bitmap-remove", node=node["node-name"], name=name)


def _slow_down(domain: Domain, rate: int) -> None:
    """Let each block job of a backup write so many bytes a second; libvirt has no call for it, and leaves it alone."""
    for device in _copying(domain):
        try:
            _ask(domain, "block-job-set-speed", device=device, speed=rate)
        except DriverError:
            if device in _copying(domain):  # else it has ended meanwhile
                raise


def _copying(domain: Domain) -> list[str]:
    """Return the block jobs of a backup that have not copied everything yet; those that have take no speed."""
    jobs = _ask(domain, "query-block-jobs")
    return [str(job["device"]) for job in jobs if job["type"] == "backup" and job["status"] in _AT_WORK]


def _drop_remains(domain: Domain) -> None:
    """Drop what a job that libvirt lost, since it was killed, has left in QEMU: each later job would be refused for it.

    libvirt names such a bitmap after the disk and never writes it down; while no job runs, nobody uses one.
    """
    for node in _nodes(domain):
        for bitmap in _named(node):
            if str(bitmap["name"]).startswith(_REMAINS) and not bitmap.get("persistent") and not bitmap.get("busy"):
                _ask(domain, "block-dirty-bitmap-remove", node=node["node-name"], name=bitmap["name"])


def _job(domain: Domain) -> str:
    try:
        return str(domain.backupGetXMLDesc(0))
    except libvirt.libvirtError as error:
        if code_is(error, libvirt.VIR_ERR_NO_DOMAIN_BACKUP, libvirt.VIR_ERR_OPERATION_INVALID):
            return ""
        raise


def _checkpoint(found: Any) -> Checkpoint:
    xml = str(found.getXMLDesc(0))
    return Checkpoint(str(found.getName()), etree.fromstring(xml).findtext("parent/name", ""), xml)


def _bitmaps(domain: Domain) -> tuple[Bitmap, ...]:
    """Return the bitmaps that QEMU has now; what lies in the files is only as new as QEMU's last end."""
    return tuple(
        Bitmap(str(node.get("file", "")), str(bitmap["name"]), sound=_sound(bitmap))
        for node in _nodes(domain)
        for bitmap in _named(node)
    )


def _named(node: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the bitmaps of a node that anybody can ask for; those by which QEMU copies while a job runs have no name.

    The name is optional: https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html, BlockDirtyInfo.
    """
    return [bitmap for bitmap in node.get("dirty-bitmaps", ()) if "name" in bitmap]


def _nodes(domain: Domain) -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = _ask(domain, "query-named-block-nodes", flat=True)
    return nodes


def _ask(domain: Domain, command: str, **arguments: object) -> Any:
    """Return QEMU's answer to a command that libvirt has no call for. :raises DriverError: it refused."""
    import libvirt_qemu

    text = json.dumps({"execute": command, "arguments": arguments})
    answer = json.loads(libvirt_qemu.qemuMonitorCommand(domain, text, 0))
    if "error" in answer:
        words = str(answer["error"].get("desc", command))
        raise DriverError(words, subject=domain.name(), hint=f"virsh domblklist {domain.name()}")
    return answer["return"]


def _sound(bitmap: dict[str, Any]) -> bool:
    return bool(bitmap.get("recording") and bitmap.get("persistent") and not bitmap.get("inconsistent"))


def _sizes(domain: Domain) -> tuple[DiskSize, ...]:
    found = []
    for element in etree.fromstring(domain.XMLDesc(0)).iterfind("devices/disk"):
        target = element.find("target")
        if element.get("device", "disk") != "disk" or target is None or element.find("source") is None:
            continue
        name = target.get("dev", "")
        with suppress(libvirt.libvirtError):  # its file is gone: whoever needs it will say so
            capacity, allocation, _ = domain.blockInfo(name, 0)
            found.append(DiskSize(name, int(capacity), int(allocation)))
    return tuple(found)
