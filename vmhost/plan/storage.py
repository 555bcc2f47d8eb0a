"""Pools, volumes and images: where a guest's disks lie."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from vmhost.model.identity import volume_name
from vmhost.model.image import ImageRecord, how_to_get
from vmhost.model.observed import Observed, ObservedPool
from vmhost.model.plan import Change, Planned
from vmhost.model.spec import DiskSpec, GuestSpec, Site
from vmhost.model.steps import DeletePool, EnsurePool
from vmhost.model.units import format_size
from vmhost.plan.overlays import backing_of
from vmhost.plan.request import NotFound, Refusal, Refused

SEED = "seed"


class Pools:
    """The storage pools that a site's guests use; a missing pool of our own name is planned, another is refused."""

    def __init__(self, site: Site, observed: Observed, directory: str, direct: frozenset[str] = frozenset()) -> None:
        self._default = site.host.pool
        self._observed = observed
        self._directory = directory
        self._direct = direct
        self._planned: dict[str, str] = {}

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """The bytes that each volume of the host can hold, by its path."""
        return {volume.path: volume.capacity for pool in self._observed.pools for volume in pool.volumes}

    @cached_property
    def backing(self) -> Mapping[str, str]:
        """What each volume of the host lies on, by its path."""
        return backing_of(self._observed.pools)

    def pool_of(self, disk: DiskSpec | None = None) -> str:
        """Return the name of the pool for a disk, or for the seed."""
        return disk.pool if disk and disk.pool else self._default

    def check(self, guest: str, pool: str) -> Refusal | None:
        """Return why a pool cannot be used, or None; remember it for :meth:`steps` when it must be made first."""
        found = self._observed.pool(pool)
        if found is None:
            if pool != "vmhost":
                return Refusal(guest, f"storage pool {pool} does not exist", "virsh pool-list --all", NotFound)
            self._planned[pool] = self._directory
            return None
        return _usable(guest, found)

    def path(self, pool: str, volume: str) -> str:
        """Return the path of a volume, existing or planned."""
        return f"{self._place(pool)}/{volume}"

    def direct(self, pool: str) -> bool:
        """Return whether QEMU can pass the host's cache by there."""
        return self._place(pool) in self._direct

    def _place(self, pool: str) -> str:
        found = self._observed.pool(pool)
        return found.path if found else self._planned.get(pool, self._directory)

    def steps(self) -> tuple[Planned, ...]:
        """Return the steps that make the missing pools."""
        return tuple(
            Planned(
                EnsurePool(name, path),
                DeletePool(name),
                Change.LIVE,
                name,
                f"{name}: new storage pool in {path}",
            )
            for name, path in self._planned.items()
        )


def _usable(guest: str, pool: ObservedPool) -> Refusal | None:
    if not pool.active:
        return Refusal(guest, f"storage pool {pool.name} is not active", f"virsh pool-start {pool.name}")
    if pool.type not in ("dir", "fs", "netfs"):
        return Refusal(
            guest,
            f"storage pool {pool.name} is of type {pool.type}; disks need a pool of files (dir, fs, netfs)",
            "virsh pool-list --details",
            Refused,
        )
    return None


def newest_image(observed: Observed, name: str) -> ImageRecord | None:
    """Return the newest image of that name, or None. ``debian-12`` and ``debian-12-3fa9...`` (its full id) both name
    it.
    """
    named = [image for image in observed.images if name in (image.name, f"{image.name}-{image.id[:12]}")]
    return max(named, key=lambda image: image.created, default=None)


def check_image(spec: GuestSpec, observed: Observed) -> tuple[ImageRecord | None, list[Refusal]]:
    """Return the image of a guest and all that speaks against booting it."""
    image = newest_image(observed, spec.image)
    if image is None:
        return None, [_no_image(spec, observed)]
    refusals = []
    if spec.root.size < image.virtual_size:
        need = format_size(image.virtual_size)
        text = f"disk {spec.root.id} of {format_size(spec.root.size)} is smaller than image {image.name} ({need})"
        refusals.append(Refusal(spec.name, text, f"write size: {need} in the site", Refused))
    if spec.firmware not in image.firmware:
        text = f"image {image.name} does not boot by {spec.firmware}, only by {', '.join(sorted(image.firmware))}"
        refusals.append(Refusal(spec.name, text, "vmhost image list", Refused))
    if spec.firmware == "uefi" and not observed.host.uefi:
        refusals.append(Refusal(spec.name, "this host has no UEFI firmware for guests", "apt install ovmf", Refused))
    return image, refusals


def _no_image(spec: GuestSpec, observed: Observed) -> Refusal:
    fault = dict(observed.damaged_images).get(spec.image)
    if fault:
        text = f"image {spec.image} is damaged and is not used: {fault}"
        return Refusal(spec.name, text, f"vmhost image delete {spec.image}", Refused)
    return Refusal(spec.name, f"image {spec.image} is not here", how_to_get(spec.image), NotFound)


def disk_volume(uuid: str, disk: DiskSpec) -> str:
    """Return the volume of a disk."""
    return volume_name(uuid, disk.id or "root")


def seed_volume(uuid: str) -> str:
    """Return the volume of the seed."""
    return volume_name(uuid, SEED, "iso")
