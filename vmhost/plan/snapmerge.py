"""A snapshot that goes: what lies on its files is merged into them. Why so: docs/decisions/0085."""

from __future__ import annotations

from dataclasses import dataclass, replace
from shlex import quote

from vmhost.model.observed import ObservedGuests, ObservedVolume
from vmhost.model.plan import Change, Note, Plan
from vmhost.model.snapshots import KeptDisk, Snapshot, Snapshots
from vmhost.model.snapsteps import MergeOverlays, Overlay
from vmhost.model.steps import DeleteVolume
from vmhost.plan.holders import holders
from vmhost.plan.request import Refused
from vmhost.plan.snapfiles import Writer
from vmhost.plan.snapsubject import PRESENT, Disk, Subject, look, named, refuse_saved, site_of


def plan_delete_snapshot(name: str, snapshot: str, observed: ObservedGuests) -> Plan:
    """Return the plan that deletes a snapshot: what lies on its files is merged into them, while the guest runs.

    Of what a guest writes to nothing is deleted, and into it nothing is merged: where somebody else has merged an
    overlay, a snapshot's file is the disk itself, and the record alone goes.

    :param observed: with all guests and pools, since others may have its files.
    :raises NotFound: no such guest or snapshot; :raises Refused: several others rest on it; the guest is foreign, or
        its memory is saved.
    """
    subject = look(name, observed)
    refuse_saved(subject)
    have = subject.snapshots
    gone = named(subject, snapshot)
    other = next((item for item in have.items if item.merging and item is not gone), None)
    if other is not None:
        text, hint = f"snapshot {other.name} is being merged away", f"vmhost snapshot delete {name} {other.name}"
        raise Refused(text, subject=name, hint=hint)
    merge = _merge(subject, gone)
    marked = replace(have, items=tuple(replace(one, merging=True) if one is gone else one for one in have.items))
    steps = []
    if not gone.merging:
        steps.append(subject.planned(subject.records(marked), subject.records(have), f"give up snapshot {snapshot}"))
    after = []
    if merge.overlays:
        do = MergeOverlays(subject.domain.uuid, subject.domain.name, merge.overlays)
        after.append(subject.planned(do, None, f"merge what lies on snapshot {snapshot} into it"))
    after.append(subject.planned(subject.records(merge.records), None, f"forget snapshot {snapshot}"))
    for pool, volume in merge.idle:
        text = f"delete {pool}/{volume}, which nothing rests on"
        after.append(subject.planned(DeleteVolume(pool, volume), None, text, Change.REMOVE))
    return Plan(site_of(subject), tuple(steps), tuple(after), tuple(Note(name, text) for text in merge.notes))


@dataclass(frozen=True, slots=True)
class _Merge:
    """What is merged, the records afterwards, the volumes that nothing rests on then, and why others stay."""

    overlays: tuple[Overlay, ...]
    records: Snapshots
    idle: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()


def _merge(subject: Subject, gone: Snapshot) -> _Merge:
    parts = [_merge_disk(subject, gone, kept) for kept in gone.disks]
    _refuse_shared(subject, gone)
    overlays = tuple(part.overlay for part in parts if part.overlay)
    moved = {part.top: kept for part, kept in zip(parts, gone.disks, strict=True) if part.overlay and part.top}
    idle = [part.top for part in parts if part.top]
    if gone.nvram and subject.has(gone.disks[0].pool, gone.nvram):
        idle.append((gone.disks[0].pool, gone.nvram))
    notes = tuple(part.note for part in parts if part.note)
    return _Merge(overlays, _without(subject.snapshots, gone, moved), tuple(idle), notes)


@dataclass(frozen=True, slots=True)
class _Part:
    """What becomes of one disk's file: something is merged into it, or nothing; ``top`` is the volume that goes, if one
    does; else ``note`` says why none does.
    """

    overlay: Overlay | None = None
    top: tuple[str, str] | None = None
    note: str = ""


def _merge_disk(subject: Subject, gone: Snapshot, kept: KeptDisk) -> _Part:
    name, base = subject.domain.name, subject.path(kept.pool, kept.volume)
    present = next((disk for disk in subject.disks if disk.id == kept.disk), None)
    holders = {(one.pool, one.volume): item for item in subject.snapshots.items for one in item.disks}
    uppers = subject.above(base)
    if writer := subject.files.writer(base):
        return _overwritten(subject, gone, kept, writer)
    told = {upper.path: _called(upper, present, holders) for upper in uppers}
    strange = next((path for path, text in told.items() if not text), "")
    if strange:
        text = f"{strange}, which is none of its snapshots, lies on snapshot {gone.name}"
        raise Refused(text, subject=name, hint=f"qemu-img info --backing-chain --force-share {quote(strange)}")
    if len(uppers) > 1:
        only = next(text for text in sorted(told.values(), key=lambda text: text == PRESENT))
        text = f"{' and '.join(told.values())} rest on snapshot {gone.name}; it cannot go before one of them"
        raise Refused(text, subject=name, hint=f"vmhost snapshot delete {name} {only}")
    if not uppers:
        return _alone(subject, kept, present)
    subject.file(kept)
    top = uppers[0]
    chain = subject.chain(present.volume.path) if present else []
    above = () if present and top.path == present.volume.path else subject.above(top.path)
    overlay = Overlay(
        present.target if present else "", top.path, base, top.path in chain, tuple(one.path for one in above)
    )
    return _Part(overlay, (top.pool, top.name))


def _overwritten(subject: Subject, gone: Snapshot, kept: KeptDisk, writer: Writer) -> _Part:
    """Return what becomes of a file that a guest writes to, or that lies on such a one: it is no snapshot any more.

    :raises Refused: another snapshot rests on it; it is none any more either, but it would be the last to say so.
    """
    base = subject.path(kept.pool, kept.volume)
    uppers = {(upper.pool, upper.name): upper.path for upper in subject.above(base)}
    for item in subject.snapshots.items:
        if any((one.pool, one.volume) in uppers for one in item.disks):
            text = f"snapshot {item.name} rests on it, and both are overwritten: {writer.guest} writes to {writer.path}"
            hint = f"vmhost snapshot delete {subject.domain.name} {item.name}"
            raise Refused(text, subject=subject.domain.name, hint=hint)
    if not uppers and writer.path != base:
        return _Part(top=(kept.pool, kept.volume))
    stays = " and ".join([kept.volume, *(path.rpartition("/")[2] for path in uppers.values())])
    why = f"{writer.guest} writes to {writer.path}, so somebody else merged it or redefined the guest"
    return _Part(note=f"snapshot {gone.name} of disk {kept.disk} is lost: {why}; {stays} stays")


def _alone(subject: Subject, kept: KeptDisk, present: Disk | None) -> _Part:
    """Return what becomes of a file on which nothing lies: it goes, unless it is all that there is of a disk."""
    if not subject.has(kept.pool, kept.volume):
        return _Part(note=f"{kept.pool}/{kept.volume} is gone already")
    if present is None:
        return _Part(note=f"{kept.pool}/{kept.volume} stays: the guest does not have disk {kept.disk} now")
    return _Part(top=(kept.pool, kept.volume))


def _refuse_shared(subject: Subject, gone: Snapshot) -> None:
    """:raises Refused: somebody else has, or lies on, a file that would be written or deleted."""
    others = holders(subject.observed.domains, subject.observed.pools, (subject.domain.uuid,))
    files = [(kept.pool, kept.volume) for kept in gone.disks]
    files += [(gone.disks[0].pool, gone.nvram)] if gone.nvram else []
    for path in (subject.path(*file) for file in files):
        if path in others:  # who has what lies on it has it, too
            text = f"{' and '.join(others[path])} has {path}, a file of snapshot {gone.name}"
            raise Refused(text, subject=subject.domain.name, hint="vmhost guest list")


def _called(upper: ObservedVolume, present: Disk | None, holders: dict[tuple[str, str], Snapshot]) -> str:
    """Return whose file a volume is: a snapshot's name or the present's; empty: nobody's of this guest."""
    if present is not None and upper.path == present.volume.path:
        return PRESENT
    holder = holders.get((upper.pool, upper.name))
    return holder.name if holder else ""


def _without(have: Snapshots, gone: Snapshot, moved: dict[tuple[str, str], KeptDisk]) -> Snapshots:
    """Return the records without one: what rested on it rests on what it rested on, and has its files."""
    rest = (
        replace(
            one,
            parent=gone.parent if one.parent == gone.number else one.parent,
            disks=tuple(moved.get((kept.pool, kept.volume), kept) for kept in one.disks),
        )
        for one in have.items
        if one is not gone
    )
    return replace(have, items=tuple(rest), present=gone.parent if have.present == gone.number else have.present)
