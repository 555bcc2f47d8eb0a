"""Limits of a disk (``iotune``), in a definition and in the QEMU that runs."""

from __future__ import annotations

from typing import Any

import libvirt

from vmhost.model.disklimits import DiskLimits
from vmhost.model.errors import DriverError

Domain = Any  # libvirt.virDomain


def limit_disk(domain: Domain, target: str, limits: DiskLimits) -> None:
    """Set all limits of a disk, named by its target. :raises DriverError: what runs is limited otherwise."""
    wanted = dict(limits.named)
    before = None
    if domain.isPersistent():
        before = _limits(domain, target, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
        domain.setBlockIoTune(target, wanted, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    if not domain.isActive():
        return
    try:
        domain.setBlockIoTune(target, wanted, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        now = _limits(domain, target, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        if now != wanted:
            raise DriverError(f"QEMU limits disk {target} to {now}, not to {wanted}", subject=domain.name())
    except (libvirt.libvirtError, DriverError):
        if before is not None:
            domain.setBlockIoTune(target, before, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
        raise


def _limits(domain: Domain, target: str, where: int) -> dict[str, int]:
    told = domain.blockIoTune(target, where)
    return {name: int(told.get(name, 0)) for name, _ in DiskLimits().named}
