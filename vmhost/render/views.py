"""Disks and NICs as templates see them, whether they are rendered with their guest or added to one that exists."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vmhost.model.disklimits import UNLIMITED, DiskLimits
from vmhost.model.errors import Refused
from vmhost.model.identity import NicIdentity

if TYPE_CHECKING:
    from vmhost.model.spec import NetworkSpec

DISK: Final = "parts/disk.xml.j2"
NIC: Final = "parts/nic.xml.j2"
USER_NICS: Final = "parts/user-nics.xml.j2"

SEED_TARGET: Final = "vdz"
"""Above every disk's, so that a disk that is added takes the same target as if it had always been there."""

MOST_DISKS: Final = 25
MOST_USER_NICS: Final = 10
_USER_NIC_SLOT: Final = 0x10
_SERIAL_LENGTH: Final = 20


@dataclass(frozen=True, slots=True)
class DiskPath:
    """Where a disk lies. ``direct``: its file system takes O_DIRECT (open(2)), so the host need not cache it too."""

    id: str
    path: str
    format: str = "qcow2"
    direct: bool = False
    limits: DiskLimits = UNLIMITED


@dataclass(frozen=True, slots=True)
class DiskView:
    """A disk as templates see it; ``boot`` is its place in the boot order, 0 for none; ``limits``: ``<iotune>``;
    ``iothread`` 0: QEMU's main thread.
    """

    id: str
    path: str
    format: str
    direct: bool
    target: str
    serial: str
    boot: int = 0
    limits: tuple[tuple[str, int], ...] = ()
    iothread: int = 0


@dataclass(frozen=True, slots=True)
class NicView:
    """A NIC on a bridge as templates see it; ``mtu`` 0: the bridge's own. Limits are KiB a second, 0: none."""

    id: str
    network: str
    mac: str
    bridge: str
    tap: str
    mtu: int = 0
    inbound: int = 0
    outbound: int = 0


@dataclass(frozen=True, slots=True)
class UserNicView:
    """A NIC on QEMU's user network as templates see it; ``slot`` is its PCI slot on the root bus."""

    id: str
    network: str
    mac: str
    port: int
    slot: str
    mtu: int = 0


def disk_view(disk: DiskPath, index: int, iothreads: int = 0) -> DiskView:
    """Return disk number ``index`` (from 0) as templates see it; the first one is booted from."""
    return DiskView(
        id=disk.id,
        path=disk.path,
        format=disk.format,
        direct=disk.direct,
        target=target_name(index),
        serial=disk_serial(disk.id),
        boot=1 if index == 0 else 0,
        limits=tuple((name, value) for name, value in disk.limits.named if value),
        iothread=iothread_of(index, iothreads),
    )


def iothread_of(index: int, iothreads: int) -> int:
    """Return the I/O thread, from 1, of disk number ``index`` of a guest with so many; 0 without any."""
    return 1 + index % iothreads if iothreads else 0


def nic_view(nic: NicIdentity, network: NetworkSpec) -> NicView:
    """Return a NIC on a bridge as templates see it."""
    limits = kib_a_second(nic.inbound), kib_a_second(nic.outbound)
    return NicView(nic.id, nic.network, nic.mac, network.bridge or "", nic.tap, network.mtu or 0, *limits)


def kib_a_second(rate: int) -> int:
    """Return a rate in bits a second in libvirt's unit (https://libvirt.org/formatnetwork.html#quality-of-service)."""
    return -(-rate // 8192)


def user_nic_view(nic: NicIdentity, network: NetworkSpec, slot: int) -> UserNicView:
    """Return a NIC on QEMU's user network as templates see it."""
    return UserNicView(nic.id, nic.network, nic.mac, nic.ssh_port, hex(slot), network.mtu or 0)


def user_nic_slot(taken: Iterable[int], subject: str) -> int:
    """Return a PCI slot of the root bus for a user NIC; libvirt itself fills that bus from below, and its end.

    :raises Refused: there are no more.
    """
    used = set(taken)
    free = (slot for slot in range(_USER_NIC_SLOT, _USER_NIC_SLOT + MOST_USER_NICS) if slot not in used)
    found = next(free, None)
    if found is None:
        raise Refused(f"at most {MOST_USER_NICS} NICs on user networks", subject=subject, hint="vmhost plan SITE")
    return found


def target_name(index: int) -> str:
    """Return libvirt's target of disk number ``index``, 0 to 24: ``vda`` to ``vdy``."""
    return f"vd{chr(ord('a') + index)}"


def disk_serial(disk_id: str) -> str:
    """Return the serial number under which the guest finds a disk: ``/dev/disk/by-id/virtio-SERIAL``.

    It is the disk's id; a virtio disk has room for 20 bytes (virtio 1.2, 5.2.6), so a longer id ends in a hash.
    """
    if len(disk_id) <= _SERIAL_LENGTH:
        return disk_id
    return f"{disk_id[:11]}-{hashlib.sha256(disk_id.encode()).hexdigest()[:8]}"
