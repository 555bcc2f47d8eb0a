"""Checkpoints, bitmaps and the repository held against each other: what a backup can rest on, or why it is a full one.

None of the three is believed alone. libvirt keeps the record of a checkpoint whose bitmaps went with a killed QEMU; a
bitmap outlives the deletion of its point; a point outlives the disk that was restored from another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vmhost.model.points import CHECKPOINT_PREFIX, Point, PointDisk, RepositoryId, Tracking

LONGEST = 100
"""Points that may lie on one full copy; each is a file that QEMU opens when the last one is read."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the next point lies on, or None and why not."""

    parent: Point | None
    because: str = ""


def checkpoint_name(repository: RepositoryId, point: str) -> str:
    """Return the name of a point's checkpoint, which is never used again: a bitmap of that name may outlive it.

    It names the repository: a guest may be backed up into several.
    """
    return f"{prefix_of(repository)}{point}"


def prefix_of(repository: RepositoryId) -> str:
    """Return what the names of a repository's checkpoints begin with; it travels with the repository."""
    return f"{CHECKPOINT_PREFIX}{repository.id[:8]}-"


def point_id(taken: str, generation: int) -> str:
    """Return the id of a point: when it was taken, and which of its guest's it is."""
    return f"{taken}-{generation:06d}"


def next_generation(points: Sequence[Point], repository: RepositoryId, tracking: Tracking, taken: str) -> int:
    """Return the number of the next point of a guest.

    It follows those that are there, and passes over those that were begun in the same second and came to nothing: QEMU
    may have kept a bitmap of that name.
    """
    used = {checkpoint.name for checkpoint in tracking.checkpoints} | {bitmap.name for bitmap in tracking.bitmaps}
    number = max((point.generation for point in points if point.ref.host == repository.host), default=0) + 1
    while checkpoint_name(repository, point_id(taken, number)) in used:
        number += 1
    return number


def decide(
    points: Sequence[Point],
    repository: RepositoryId,
    tracking: Tracking,
    disks: Sequence[PointDisk],
    *,
    running: bool,
    full: bool,
    now: str = "",
    reverted: str = "",
) -> Decision:
    """Return what the next point of a guest lies on.

    :param points: those of this guest that can be read, of all hosts.
    :param now: when the next one is taken; :param reverted: when the guest last went back to a snapshot; empty: never.
        Both as points have their time. One in the second of a point counts as after it. A revert at a time that is yet
        to come, of a clock that was wrong, does not count: each point would be a full one until then.
    """
    own = sorted((point for point in points if point.ref.host == repository.host), key=lambda point: point.generation)
    if full:
        return Decision(None, "it was asked for")
    if not own:
        return Decision(None, "its points were taken on another host" if points else "it is the first one")
    if not running:
        return Decision(None, "the guest is shut off")
    if raw := next((disk for disk in disks if disk.format != "qcow2"), None):
        return Decision(None, f"disk {raw.id} is {raw.format}, which keeps no record of what changes")
    there = {checkpoint.name for checkpoint in tracking.checkpoints}
    parent = next((point for point in reversed(own) if point.checkpoint and point.checkpoint in there), None)
    if parent is None:
        return Decision(None, _no_checkpoint(own[-1]))
    fault = _fault(parent, own, tracking, disks)
    if not fault and parent.taken <= reverted <= now:
        fault = f"it went back to a snapshot at {reverted}"
    return Decision(None, fault) if fault else Decision(parent)


def _no_checkpoint(newest: Point) -> str:
    if not newest.checkpoint:
        return "the last point was taken while it was shut off"
    return "its checkpoint is gone: it was restored, reverted, or defined anew"


def _fault(parent: Point, own: Sequence[Point], tracking: Tracking, disks: Sequence[PointDisk]) -> str:
    """Return why nothing can lie on a point whose checkpoint is there, or empty."""
    before = {disk.id: disk for disk in parent.disks}
    sound = {(bitmap.source, bitmap.name): bitmap.sound for bitmap in tracking.bitmaps}
    for disk in disks:
        if disk.id not in before:
            return f"disk {disk.id} is new"
        if disk.capacity != before[disk.id].capacity:
            return f"disk {disk.id} was resized"
        if (disk.source, parent.checkpoint) not in sound:
            if disk.source != before[disk.id].source:
                return f"disk {disk.id} lies in another file since, as after a revert, without a record of what changed"
            return f"the record of what changed on disk {disk.id} is lost: QEMU ended without writing it"
        if not sound[disk.source, parent.checkpoint]:
            return f"the record of what changed on disk {disk.id} is not sound"
    gone = before.keys() - {disk.id for disk in disks}
    if gone:
        return f"disk {min(gone)} is gone"
    return _chain_fault(parent, {point.id: point for point in own})


def _chain_fault(parent: Point, known: dict[str, Point]) -> str:
    length, point = 1, parent
    while True:
        if point.damaged:
            return f"point {point.id} is damaged"
        if not point.parent:
            return ""
        length += 1
        if point.parent not in known:
            return f"point {point.id} lies on {point.parent}, which is gone or damaged"
        if length > LONGEST:
            return f"{LONGEST} points lie on one full copy"
        point = known[point.parent]
