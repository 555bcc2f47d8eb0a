"""Disks that come and go beside snapshots.

A disk that a snapshot of its guest names is not detached: the snapshot would outlive what says which of the disk's
files is its newest. A volume that is there already becomes a disk again only if it is the newest file of it: no
snapshot names it, nothing lies on it, and no other guest has it. Why so: docs/decisions/0085.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count
from shlex import quote

from vmhost.model.observed import ObservedVolume
from vmhost.model.plan import Change
from vmhost.model.snapshots import Snapshot, is_overlay_of
from vmhost.plan.compare import Delta, Pair
from vmhost.plan.holders import holders
from vmhost.plan.request import Refusal, Refused
from vmhost.plan.storage import disk_volume
from vmhost.render.parse.domain import DISK_ALIAS
from vmhost.render.parse.snapshots import parse_snapshots
from vmhost.render.views import target_name


def kept_disks(pair: Pair, deltas: Iterable[Delta]) -> list[Refusal]:
    """Return why disks may not be detached, and volumes that are there may not become disks."""
    snapshots = parse_snapshots(pair.domain.raw.xml).items
    wanted = {str(disk.id): disk for disk in pair.spec.disks}
    refusals: list[Refusal] = []
    for delta in deltas:
        kind, _, rest = delta.field.partition(".")
        disk, _, what = rest.partition(".")
        if kind != "disks" or delta.change is not Change.NEXT_BOOT or what not in ("", "source"):
            continue
        if what and pair.overwrite:
            continue  # it is asked for that the guest leaves the file that it is in
        if disk in wanted:
            pool = pair.pools.pool_of(wanted[disk])
            refusals += _attached(pair, disk, pool, disk_volume(pair.identity.uuid, wanted[disk]), snapshots)
        else:
            refusals += _detached(pair, disk, snapshots)
    return refusals


def _detached(pair: Pair, disk: str, snapshots: Iterable[Snapshot]) -> Iterator[Refusal]:
    names = [item.name for item in snapshots if item.disk(disk)]
    if names:
        text = f"disk {disk} is not detached: {_snapshots(names)} it"
        yield Refusal(pair.spec.name, text, f"vmhost snapshot delete {pair.spec.name} {names[-1]}", Refused)


def _attached(pair: Pair, disk: str, pool: str, volume: str, snapshots: tuple[Snapshot, ...]) -> Iterator[Refusal]:
    """Yield why a volume is not the newest file of a disk; one that is not there yet is made empty."""
    path = pair.pools.path(pool, volume)
    if path not in pair.pools.sizes:
        return
    keep = [item.name for item in snapshots if any((one.pool, one.volume) == (pool, volume) for one in item.disks)]
    above = [one for found in pair.observed.pools for one in found.volumes if one.backing == path]
    others = holders(pair.observed.domains, pair.observed.pools, (pair.identity.uuid,)).get(path, ())
    reasons = [_snapshots(keep)] if keep else []
    reasons += [f"{' and '.join(one.name for one in above)} lies on"] if above else []
    reasons += [f"{' and '.join(others)} has"] if others and not above else []
    if reasons:
        text = f"{path} is not attached as disk {disk}: {' it, and '.join(reasons)} it"
        hint = _how(pair, disk, path, snapshots) or f"qemu-img info --force-share {quote(path)}"
        yield Refusal(pair.spec.name, text, hint)


def _snapshots(names: list[str]) -> str:
    return f"snapshot{'s' * (len(names) > 1)} {' and '.join(names)} {'keeps' if len(names) == 1 else 'keep'}"


def _how(pair: Pair, disk: str, path: str, snapshots: Iterable[Snapshot]) -> str:
    """Return how to attach the newest file of a disk that was detached past vmhost; empty where that is not plain."""
    kept = {(one.pool, one.volume) for item in snapshots for one in item.disks}
    volumes = [volume for pool in pair.observed.pools for volume in pool.volumes]
    below = {volume.backing for volume in volumes}

    def newest(volume: ObservedVolume) -> bool:
        free = volume.path not in below and (volume.pool, volume.name) not in kept
        return free and is_overlay_of(volume.path, path)

    found = [volume.path for volume in volumes if newest(volume)]
    if len(found) != 1 or any(one.alias == f"{DISK_ALIAS}{disk}" for one in pair.domain.facts.disks):
        return ""
    taken = {one.target for one in pair.domain.facts.disks}
    target = next(name for name in map(target_name, count()) if name not in taken)
    words = f"virsh attach-disk {quote(pair.domain.name)} {quote(found[0])} {target} --subdriver qcow2"
    return f"{words} --alias {DISK_ALIAS}{disk} --config"
