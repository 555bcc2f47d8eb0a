"""The effect of steps about points, checkpoints and restored disks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import Final, assert_never

from vmhost.backupports import Tell
from vmhost.engine.context import Context
from vmhost.engine.power import refuse_running
from vmhost.model.backupsteps import (
    BackupStep,
    BeginBackup,
    BringNvram,
    CopyDisks,
    DeletePoint,
    DiscardPoint,
    DropBitmap,
    DropCheckpoint,
    EndBackup,
    MakeRepository,
    OpenPoint,
    PinPoint,
    PublishPoint,
    RemoveFile,
    RestoreDisk,
    SwapFile,
    UnswapFile,
)
from vmhost.model.errors import Absent, DriverError, NoCapacity
from vmhost.model.events import Notice, Progress
from vmhost.model.points import NVRAM, SEED, Level
from vmhost.model.units import format_size
from vmhost.render.seed import known_seed

LOOK = 0.02
LOOK_RARELY = 0.2
"""Seconds between two looks at a job: soon at first, since most increments are small."""
MARGIN: Final = 1 << 30
"""Bytes beside a guest's disks below which it is not copied on; where there is less than twice that, half of it."""
LOST: Final = 30.0
"""Seconds after which a job that has nothing to copy is believed to be libvirt's only: a job of QEMU has at once."""


def execute_backup(step: BackupStep, context: Context) -> str:  # noqa: C901 - one match over the closed union of steps
    """Do one step and return what is worth telling about it.

    :raises DriverError: it failed; :raises DamagedData: what is there is not what it should be.
    """
    hypervisor, repositories = context.ports.hypervisor, context.ports.repositories
    match step:
        case MakeRepository(path, id):
            repositories.make(path, id)
        case OpenPoint(new):
            repositories.begin(new)
        case DiscardPoint(ref):
            repositories.discard(ref)
        case BeginBackup(uuid, _, xml, checkpoint_xml, reuse, rate):
            hypervisor.begin_backup(uuid, xml, checkpoint_xml, reuse=reuse, rate=rate)
        case EndBackup():
            _end(step, context)
        case CopyDisks():
            _copy(step, context)
        case PublishPoint():
            _publish(step, context)
        case DeletePoint(ref):
            repositories.delete(ref)
        case PinPoint(ref, on):
            repositories.note(ref, pinned=on)
        case DropCheckpoint(uuid, _, checkpoint, lost):
            hypervisor.drop_checkpoint(uuid, checkpoint, lost=lost)
        case DropBitmap(uuid, _, source, bitmap):
            hypervisor.drop_bitmap(uuid, source, bitmap)
        case RestoreDisk(ref, file, target, like):
            repositories.restore(ref, file, target, like, _teller(context, Path(target).name, "verify and write"))
        case BringNvram(ref, target):
            repositories.bring(ref, NVRAM, target)
        case SwapFile(uuid, name, path, new, kept):
            refuse_running(uuid, name, "disks", context.ports)
            repositories.swap(path, new, kept)
        case UnswapFile(uuid, name, path, kept):
            if kept in repositories.kept(path):
                refuse_running(uuid, name, "disks", context.ports)
            repositories.unswap(path, kept)
        case RemoveFile(path):
            repositories.remove(path)
        case _:
            assert_never(step)
    return ""


def _teller(context: Context, subject: str, text: str, check: Callable[[], None] = lambda: None) -> Tell:
    """Return what tells how far the work is, with its rate, and ends it when the operation is cancelled.

    :param check: asked each time, too; what it raises ends the work.
    """
    clock = context.ports.clock
    start = clock.monotonic()

    def tell(done: int, total: int) -> None:
        context.check()
        check()
        seconds = clock.monotonic() - start
        context.on_event(Progress(subject, text, done, total, done / seconds if seconds > 0 else 0.0))

    return tell


def _room_watch(step: CopyDisks, context: Context) -> Callable[[], None]:
    """Return what is asked while a running guest is copied: whether what it overwrites still has room.

    QEMU keeps that in a file beside the disks, and pauses a guest whose write finds no room there.
    """
    room = context.ports.repositories.room
    places = sorted({str(Path(disk.source).parent) for disk in step.disks}) if step.how == "pull" else []
    margins = {place: min(MARGIN, room(place) // 2) for place in places}

    def check() -> None:
        for place, margin in margins.items():
            if (free := room(place)) < margin:
                text = f"the copy was ended, since what it overwrites meanwhile has left {format_size(free)} in {place}"
                hint = f"vmhost backup run {step.name} --rate 0" if step.rate else f"df -h {quote(place)}"
                raise NoCapacity(text, subject=step.name, hint=hint)

    return check


def _end(step: EndBackup, context: Context) -> None:
    """End our job and drop its checkpoint; what is not there any more needs no end."""
    hypervisor = context.ports.hypervisor
    with suppress(Absent):
        tracking = hypervisor.tracking(step.uuid)
        if step.mark in tracking.job:
            with suppress(Absent):
                hypervisor.end_backup(step.uuid)
        if step.checkpoint:
            hypervisor.drop_checkpoint(step.uuid, step.checkpoint)


def _copy(step: CopyDisks, context: Context) -> None:
    repositories, hypervisor = context.ports.repositories, context.ports.hypervisor
    if step.nvram and (variables := context.ports.files.nvram(hypervisor.domain(step.uuid))):
        repositories.put(step.ref, step.nvram, variables)
    if step.instance_id:
        seed = known_seed(step.instance_id, step.hostname)
        repositories.put(step.ref, SEED, context.ports.seeds.make(seed))
    if step.how == "push":
        _await_job(step, context)
        if step.compression != "none":
            _pack(step, context)
        return
    check = _room_watch(step, context)
    for disk in step.disks:
        tell = _teller(context, step.name, f"copy {disk.target}", check)
        repositories.copy(step.ref, disk, step.mark, tell, rate=step.rate, compression=step.compression)
    if step.how == "pull":
        with suppress(Absent):
            hypervisor.end_backup(step.ref.guest)


def _pack(step: CopyDisks, context: Context) -> None:
    """Compress what QEMU has written, where that can be done: a point that is larger is worth more than none."""
    for disk in step.disks:
        tell = _teller(context, step.name, f"compress {disk.target}")
        try:
            context.ports.repositories.pack(step.ref, disk.file, step.compression, tell, rate=step.rate)
        except DriverError as error:
            context.on_event(Notice(step.name, f"{disk.target} stays as it is, not compressed: {error.message}"))


def _await_job(step: CopyDisks, context: Context) -> None:
    """Wait until QEMU has written everything.

    A libvirt that was killed while a job ended may keep it for ever, though QEMU no longer has it.

    :raises DriverError: it could not, or libvirt's job is none of QEMU's.
    """
    hypervisor, clock = context.ports.hypervisor, context.ports.clock
    tell = _teller(context, step.name, "copy what changed")
    wakeups = context.ports.signals.open(hypervisor, step.ref.guest, "")
    try:
        start = known = clock.monotonic()
        while (progress := hypervisor.backup_progress(step.ref.guest)).state == "running":
            known = clock.monotonic() if progress.total else known
            if clock.monotonic() - known > LOST:
                text = f"libvirt has told nothing of the backup job for {LOST:g} s: it lost it while it was restarted"
                raise DriverError(text, subject=step.name, hint=f"vmhost backup run {step.name}")
            tell(progress.done, progress.total)
            wakeups.wait(LOOK if clock.monotonic() - start < 1 else LOOK_RARELY)
    finally:
        wakeups.close()
    if progress.state != "done":
        text = progress.error or "the backup job is gone"
        raise DriverError(text, subject=step.name, hint=f"vmhost backup run {step.name} --full")


def _publish(step: PublishPoint, context: Context) -> None:
    documents = {}
    if step.checkpoint:
        found = context.ports.hypervisor.tracking(step.ref.guest).checkpoints
        checkpoint = next((one for one in found if one.name == step.checkpoint), None)
        if checkpoint is None:
            text = "its checkpoint is gone: the guest was shut off or reverted meanwhile"
            raise DriverError(text, subject=step.ref.id, hint="vmhost backup run")
        documents["checkpoint.xml"] = checkpoint.xml
    reached = context.quiesced.get(step.ref.guest)
    level: Level = reached.level.value if reached else "crash"
    context.ports.repositories.publish(step.ref, documents, _teller(context, step.ref.id, "hash"), level=level)
