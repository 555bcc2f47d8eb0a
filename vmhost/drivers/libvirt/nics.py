"""NICs of running domains: plugged in, taken out, their links set."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import libvirt
from lxml import etree

from vmhost.drivers.libvirt.unplugging import await_gone
from vmhost.model.errors import Absent, AlreadyThere

Domain = Any  # libvirt.virDomain


def plug(domain: Domain, xml: str) -> None:
    """Plug a NIC into a running domain. :raises AlreadyThere: it has one of that MAC."""
    mac = _mac(etree.fromstring(xml))
    if _find(domain, mac) is not None:
        raise AlreadyThere(f"it has a NIC {mac}", subject=domain.name(), hint=f"virsh domiflist {domain.name()}")
    domain.attachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)


def unplug(domain: Domain, mac: str, timeout: float) -> None:
    """Take a NIC out and wait until the guest has let go of it; libvirt itself returns before that.

    :raises Absent: there is none of that MAC. :raises Unreachable: the guest has not let go of it in time.
    """
    domain.detachDeviceFlags(_text(_there(domain, mac)), libvirt.VIR_DOMAIN_AFFECT_LIVE)
    await_gone(domain, lambda: _find(domain, mac) is not None, f"NIC {mac}", timeout)


def set_link(domain: Domain, mac: str, *, up: bool) -> None:
    """Set the link of a NIC. :raises Absent: there is none of that MAC."""
    element = _there(domain, mac)
    link = element.find("link")
    if link is None:
        link = etree.SubElement(element, "link")
    link.set("state", "up" if up else "down")
    domain.updateDeviceFlags(_text(element), libvirt.VIR_DOMAIN_AFFECT_LIVE)


def _there(domain: Domain, mac: str) -> etree._Element:
    element = _find(domain, mac)
    if element is None:
        raise Absent(f"it has no NIC {mac}", subject=domain.name(), hint=f"virsh domiflist {domain.name()}")
    return element


def _find(domain: Domain, mac: str) -> etree._Element | None:
    root = etree.fromstring(domain.XMLDesc(0))
    return next((deepcopy(nic) for nic in root.iterfind("devices/interface") if _mac(nic) == mac.lower()), None)


def _mac(element: etree._Element) -> str:
    found = element.find("mac")
    return (found.get("address") or "").lower() if found is not None else ""


def _text(element: etree._Element) -> str:
    return etree.tostring(element, encoding="unicode")
