"""NICs of running domains on a fake host: plugged in, taken out, their links set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from lxml import etree

from vmhost.model.errors import Absent, AlreadyThere, Unreachable
from vmhost.testing.machine import Machine
from vmhost.testing.world import Domain, World
from vmhost.testing.xml import read, write


class FakeNics:
    """What libvirt does to the NICs of a domain that runs; its definition stays as it is."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def plug(self, uuid: str, xml: str) -> None:
        """Plug a NIC in: its port is born in no VLAN. :raises AlreadyThere: there is one of that MAC."""
        element = read(xml)
        with self._live(uuid) as (world, domain, root):
            if _find(root, _mac(element)) is not None:
                raise AlreadyThere(f"it has a NIC {_mac(element)}", subject=domain.name, hint="virsh domiflist")
            target = element.find("target")
            if target is not None:
                world.vlans.pop(target.get("dev", ""), None)
            devices = root.find("devices")
            assert devices is not None
            others = devices.findall("interface")
            if others:
                others[-1].addnext(element)
            else:
                devices.append(element)

    def unplug(self, uuid: str, mac: str, timeout: float) -> None:
        """Take a NIC out. :raises Absent: there is none; :raises Unreachable: the guest does not let go of it."""
        with self._live(uuid) as (world, domain, root):
            element = _there(domain, root, mac)
            if not world.behaviour(domain.name).obeys:
                self._machine.advance(timeout)
                text = f"the guest has not let go of NIC {mac} in {timeout:g} s"
                raise Unreachable(text, subject=domain.name, retryable=True)
            parent = element.getparent()
            assert parent is not None
            parent.remove(element)
            target = element.find("target")
            tap = target.get("dev") if target is not None else None
            world.isolated = [name for name in world.isolated if name != tap]  # it goes with the port

    def set_link(self, uuid: str, mac: str, *, up: bool) -> None:
        """Set the link of a NIC. :raises Absent: there is none."""
        with self._live(uuid) as (_, domain, root):
            element = _there(domain, root, mac)
            for link in element.findall("link"):
                element.remove(link)
            if not up:
                etree.SubElement(element, "link").set("state", "down")

    def _live(self, uuid: str) -> AbstractContextManager[tuple[World, Domain, etree._Element]]:
        return live_root(self._machine, uuid)


@contextmanager
def live_root(machine: Machine, uuid: str) -> Iterator[tuple[World, Domain, etree._Element]]:
    """Give the world, a domain that runs and its XML, which is written back. :raises Absent: it does not run."""
    with machine.at_work(changing=True) as world:
        domain = world.domains.get(uuid)
        if domain is None or not domain.state.active:
            raise Absent("it does not run", subject=domain.name if domain else uuid, hint="vmhost guest list")
        root = read(domain.live_xml)
        yield world, domain, root
        domain.live_xml = write(root)


def _there(domain: Domain, root: etree._Element, mac: str) -> etree._Element:
    element = _find(root, mac)
    if element is None:
        raise Absent(f"it has no NIC {mac}", subject=domain.name, hint=f"virsh domiflist {domain.name}")
    return element


def _find(root: etree._Element, mac: str) -> etree._Element | None:
    return next((nic for nic in root.iterfind("devices/interface") if _mac(nic) == mac.lower()), None)


def _mac(element: etree._Element) -> str:
    found = element.find("mac")
    return (found.get("address") or "").lower() if found is not None else ""
