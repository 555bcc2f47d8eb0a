"""Memory modules (DIMMs) of running domains, plugged in and taken out (https://libvirt.org/formatdomain.html#memory-devices)."""

from __future__ import annotations

from typing import Any

import libvirt
from lxml import etree

from vmhost.drivers.libvirt.unplugging import await_gone
from vmhost.model.errors import Absent, AlreadyThere

Domain = Any  # libvirt.virDomain


def plug(domain: Domain, alias: str, size: int) -> None:
    """Plug a module into the first cell. :raises AlreadyThere: it has one of that alias."""
    if _find(domain, alias) is not None:
        raise AlreadyThere(
            f"it has a memory module {alias}", subject=domain.name(), hint=f"virsh dumpxml {domain.name()}"
        )
    element = etree.Element("memory", model="dimm")
    target = etree.SubElement(element, "target")
    etree.SubElement(target, "size", unit="KiB").text = str(size // 1024)
    etree.SubElement(target, "node").text = "0"
    etree.SubElement(element, "alias", name=alias)
    domain.attachDeviceFlags(etree.tostring(element, encoding="unicode"), libvirt.VIR_DOMAIN_AFFECT_LIVE)


def unplug(domain: Domain, alias: str, timeout: float) -> None:
    """Take a module out and wait until the guest has let go of it.

    :raises Absent: there is none of that alias. :raises Unreachable: the guest has not let go of it in time.
    """
    element = _find(domain, alias)
    if element is None:
        raise Absent(f"it has no memory module {alias}", subject=domain.name(), hint=f"virsh dumpxml {domain.name()}")
    domain.detachDeviceFlags(etree.tostring(element, encoding="unicode"), libvirt.VIR_DOMAIN_AFFECT_LIVE)
    await_gone(domain, lambda: _find(domain, alias) is not None, f"memory module {alias}", timeout)


def _find(domain: Domain, alias: str) -> etree._Element | None:
    root = etree.fromstring(domain.XMLDesc(0))
    return next((one.getparent() for one in root.iterfind(f"devices/memory/alias[@name='{alias}']")), None)
