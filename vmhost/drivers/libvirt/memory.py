"""Memory modules (DIMMs) of running domains, plugged in and taken out (https://libvirt.org/formatdomain.html#memory-devices)."""

from __future__ import annotations

import time
from typing import Any, Final

import libvirt
from lxml import etree

from vmhost.model.errors import Absent, AlreadyThere, Unreachable

Domain = Any  # libvirt.virDomain

_LOOK_AGAIN: Final = 0.2


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
    deadline = time.monotonic() + timeout
    while _find(domain, alias) is not None:
        if time.monotonic() >= deadline:
            text = f"the guest has not let go of memory module {alias} in {timeout:g} s"
            raise Unreachable(text, subject=domain.name(), retryable=True)
        time.sleep(_LOOK_AGAIN)


def _find(domain: Domain, alias: str) -> etree._Element | None:
    root = etree.fromstring(domain.XMLDesc(0))
    return next((one.getparent() for one in root.iterfind(f"devices/memory/alias[@name='{alias}']")), None)
