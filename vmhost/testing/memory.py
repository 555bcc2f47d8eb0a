"""Memory modules of running domains on a fake host."""

from __future__ import annotations

from lxml import etree

from vmhost.model.errors import Absent, AlreadyThere, DriverError, Unreachable
from vmhost.render.parse.units import int_of, size_of
from vmhost.testing.machine import Machine
from vmhost.testing.nics import live_root
from vmhost.testing.xml import E, ensure


class FakeMemory:
    """What libvirt does to the memory modules of a domain that runs; its definition stays as it is."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def plug(self, uuid: str, alias: str, size: int) -> None:
        """Plug a module in. :raises AlreadyThere: there is one of that alias; :raises DriverError: there is no room."""
        with live_root(self._machine, uuid) as (_, domain, root):
            if _find(root, alias) is not None:
                raise AlreadyThere(f"it has a memory module {alias}", subject=domain.name, hint="virsh dumpxml")
            most, devices = root.find("maxMemory"), ensure(root, "devices")
            if most is None:
                text = (
                    "unsupported configuration: cannot use/hotplug a memory device when domain maxMemory is not defined"
                )
                raise DriverError(text, subject=domain.name)
            full = size_of(most, "KiB") < size_of(root.find("memory"), "KiB") + size
            if full or len(devices.findall("memory")) >= int_of(most.get("slots")):
                text = "unsupported configuration: memory device would exceed domain's maxMemory, or its slots"
                raise DriverError(text, subject=domain.name)
            target = E.target(E.size(str(size // 1024), unit="KiB"), E.node("0"))
            devices.append(E.memory(target, E.alias(name=alias), model="dimm"))
            _grow(root, size)

    def unplug(self, uuid: str, alias: str, timeout: float) -> None:
        """Take a module out. :raises Absent: there is none; :raises Unreachable: the guest does not let go of it."""
        with live_root(self._machine, uuid) as (world, domain, root):
            element = _find(root, alias)
            if element is None:
                raise Absent(f"it has no memory module {alias}", subject=domain.name, hint="virsh dumpxml")
            if not world.behaviour(domain.name).obeys:
                self._machine.advance(timeout)
                text = f"the guest has not let go of memory module {alias} in {timeout:g} s"
                raise Unreachable(text, subject=domain.name, retryable=True)
            _grow(root, -size_of(element.find("target/size"), "KiB"))
            ensure(root, "devices").remove(element)


def _grow(root: etree._Element, size: int) -> None:
    for tag in ("memory", "currentMemory"):
        place = root.find(tag)
        if place is not None:
            place.text = str((size_of(place, "KiB") + size) // 1024)
            place.set("unit", "KiB")


def _find(root: etree._Element, alias: str) -> etree._Element | None:
    return next((one.getparent() for one in root.iterfind(f"devices/memory/alias[@name='{alias}']")), None)
