"""The definition of a guest, made into that of its drill: beside everything else, and with nothing of the host's.

Whoever can write into a repository has chosen every word of it. So only what is known to be the guest's own is taken,
and what leads out of the machine is written anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from lxml import etree

from vmhost.model.identity import NAMESPACE
from vmhost.render.document import child, drop, read, write
from vmhost.render.metadata import PREFIX
from vmhost.render.parse.domain import QEMU_NS, SEED_ALIAS, alias_of, properties, qemu_arguments

_MACHINE: Final = frozenset(
    {
        *("name", "uuid", "memory", "currentMemory", "maxMemory", "vcpu", "vcpus", "iothreads", "iothreadids", "os"),
        *("sysinfo", "features", "cpu", "clock", "on_poweroff", "on_reboot", "on_crash", "pm", "devices"),
    }
)
_SYSTEM: Final = frozenset({"type", "boot", "bootmenu", "bios", "smbios", "firmware", "loader", "nvram"})
_FIRMWARE: Final = "/usr/share/"
_HOLDS: Final[Mapping[str, frozenset[str]]] = {
    "disk": frozenset({"driver", "target", "readonly", "boot", "serial", "wwn", "vendor", "product", "blockio"}),
    "interface": frozenset({"mac", "model", "driver", "rom"}),
    "rng": frozenset({"driver"}),
    **dict.fromkeys(("serial", "channel", "memory"), frozenset({"target"})),
    **dict.fromkeys(("controller", "iommu"), frozenset({"driver", "master", "model", "target"})),
    **dict.fromkeys(("input", "memballoon", "panic"), frozenset({"driver", "stats"})),
}
"""The devices that a drill has, and what of each is the guest's own, beside its alias and its address."""

_DISKS: Final = frozenset({"disk", "cdrom", "floppy"})
_DISK_DRIVER: Final = frozenset({"name", "iothread", "queues", "queue_size", "ioeventfd", "event_idx", "packed"})
_MEMORY: Final = frozenset({"dimm", "virtio-mem"})
_INPUTS: Final = frozenset({"mouse", "keyboard", "tablet"})
_AGENT: Final = "org.qemu.guest_agent.0"
_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_SLOT: Final = re.compile(r"0x[0-9a-f]{1,2}")
_MTU: Final = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class DrillDomain:
    """What a drill's domain is. ``disks`` are overlays by target; ``nics`` a bridge and a tap for each MAC;
    ``forwards`` the host's loopback port that leads to the SSH server, by the MAC of a NIC on QEMU's user network;
    ``cpus`` the pCPUs that nobody has for itself, empty: all.
    """

    uuid: str
    name: str
    guest: str
    point: str
    serial_log: str
    disks: Mapping[str, str]
    nics: Mapping[str, tuple[str, str]]
    forwards: Mapping[str, int]
    nvram: str = ""
    seed: str = ""
    cpus: str = ""


def drill_xml(xml: str, drill: DrillDomain) -> str:
    """Return the definition of a drill, made from that of the point's guest; what the guest sees stays as it was.

    It has disks of the point only, NICs on bridges that lead nowhere, no pins and no quotas, and never starts again by
    itself. Its metadata says what it is (``vmhost:drill``).

    :raises DamagedData: it is not well-formed XML.
    """
    root = read(xml)
    user_nics = tuple(_user_nics(root, drill.forwards))
    _keep(root, _MACHINE, "type")
    child(root, "name").text, child(root, "uuid").text = drill.name, drill.uuid
    for tag in ("on_poweroff", "on_crash"):
        child(root, tag).text = "destroy"
    for vcpu in root.findall("vcpu"):
        vcpu.attrib.pop("cpuset", None)
        if drill.cpus:
            vcpu.set("cpuset", drill.cpus)
    for cell in root.findall("cpu/numa/cell"):
        cell.attrib.pop("memAccess", None)  # its memory is nobody else's
    for info in root.findall("sysinfo"):
        if info.get("type") != "smbios":  # QEMU reads files for others
            drop(info)
    _metadata(root, drill)
    _system(root, drill.nvram)
    _devices(root, drill)
    if user_nics:
        line = etree.SubElement(root, f"{QEMU_NS}commandline", nsmap={"qemu": QEMU_NS.strip("{}")})
        for word in user_nics:
            etree.SubElement(line, f"{QEMU_NS}arg", value=word)
    return write(root)


def _keep(element: etree._Element, tags: frozenset[str], *attributes: str) -> None:
    """Drop every other child, and every other attribute if any are named."""
    for each in list(element):
        if each.tag not in tags:
            element.remove(each)
    for name in list(element.attrib) if attributes else ():
        if name not in attributes:
            del element.attrib[name]


def _metadata(root: etree._Element, drill: DrillDomain) -> None:
    mark = etree.SubElement(child(root, "metadata"), f"{{{NAMESPACE}}}drill", nsmap={PREFIX: NAMESPACE})
    mark.set("version", "1")
    mark.set("guest", drill.guest)
    mark.set("point", drill.point)


def _system(root: etree._Element, nvram: str) -> None:
    """Let the firmware be the host's own, and its variables the drill's."""
    system = child(root, "os")
    _keep(system, _SYSTEM)
    for loader in system.findall("loader"):
        path = loader.text or ""
        if path and (not path.startswith(_FIRMWARE) or ".." in path):
            drop(loader)
            if loader.get("type") == "pflash":
                system.set("firmware", "efi")  # libvirt finds one
    for variables in system.findall("nvram"):
        drop(variables)
    if nvram:
        etree.SubElement(system, "nvram").text = nvram


def _devices(root: etree._Element, drill: DrillDomain) -> None:
    devices = child(root, "devices")
    _keep(devices, frozenset(_HOLDS))
    for device in devices:
        _keep(device, _HOLDS[str(device.tag)] | {"alias", "address"})
    for disk in devices.findall("disk"):
        _disk(disk, drill)
    for nic in devices.findall("interface"):
        mac = nic.find("mac")
        way = drill.nics.get("" if mac is None else mac.get("address", ""))
        if way is None:
            drop(nic)
        else:
            _nic(nic, *way)
    for tag, check in _CHECKS.items():
        for device in devices.findall(tag):
            if not check(device):
                drop(device)
    _console(devices, drill.serial_log)


def _disk(disk: etree._Element, drill: DrillDomain) -> None:
    target = disk.find("target")
    path, form = drill.disks.get("" if target is None else target.get("dev", ""), ""), "qcow2"
    if not path and alias_of(disk) == SEED_ALIAS:
        path, form = drill.seed, "raw"
    if not path:
        drop(disk)
        return
    device, model = disk.get("device", "disk"), disk.get("model", "")
    disk.attrib.clear()
    disk.attrib.update({"type": "file", "device": device if device in _DISKS else "disk"})
    if model:
        disk.set("model", model)
    driver = child(disk, "driver")
    _keep(driver, frozenset(), *_DISK_DRIVER)
    driver.set("type", form)
    driver.addnext(etree.Element("source", file=path))


def _nic(nic: etree._Element, bridge: str, tap: str) -> None:
    nic.attrib.clear()
    nic.set("type", "bridge")
    for rom in nic.findall("rom"):
        rom.attrib.pop("file", None)
    nic.append(etree.Element("source", bridge=bridge))
    nic.append(etree.Element("target", dev=tap))


def _agent(channel: etree._Element) -> bool:
    """Let the agent's channel be where libvirt wants it; no other one leads anywhere."""
    target = channel.find("target")
    channel.attrib.clear()
    channel.set("type", "unix")
    return target is not None and (target.get("type"), target.get("name")) == ("virtio", _AGENT)


def _random(rng: etree._Element) -> bool:
    backend = etree.SubElement(rng, "backend", model="random")
    backend.text = "/dev/urandom"
    return rng.get("model", "").startswith("virtio")


_CHECKS: Final[Mapping[str, Callable[[etree._Element], bool]]] = {
    "channel": _agent,
    "rng": _random,
    "memory": lambda memory: memory.get("model") in _MEMORY,
    "input": lambda device: device.get("type") in _INPUTS,
}
"""Which of these devices a drill has; what they are backed by is made the host's everyday means."""


def _console(devices: etree._Element, log: str) -> None:
    """Let the first serial port be logged, whatever it was connected to."""
    ports = devices.findall("serial")
    for port in ports[1:]:
        drop(port)
    port = ports[0] if ports else etree.SubElement(devices, "serial")
    port.attrib.clear()
    port.set("type", "pty")
    port.insert(0, etree.Element("log", file=log, append="on"))


def _user_nics(root: etree._Element, forwards: Mapping[str, int]) -> Iterator[str]:
    """Yield what tells QEMU of the NICs on its user network, anew: they lead nowhere but to the host's loopback, under
    ports of the drill's own. Of the old words only the MAC, the slot and the MTU are the guest's.
    """
    found = [properties(value) for option, value in qemu_arguments(root) if option == "-device"]
    devices = {device["mac"].lower(): device for device in found if "netdev" in device and "mac" in device}
    for index, (mac, device) in enumerate(devices.items()):
        if mac not in forwards or not _MAC.fullmatch(mac):
            continue
        port, slot, mtu = forwards[mac], device.get("addr", ""), device.get("host_mtu", "")
        forward = f",hostfwd=tcp:127.0.0.1:{port}-:22" if port else ""
        place = f",bus=pcie.0,addr={slot}" if _SLOT.fullmatch(slot) else ""
        most = f",host_mtu={mtu}" if _MTU.fullmatch(mtu) else ""
        yield from ("-netdev", f"user,id=drill{index},restrict=on{forward}")
        yield from ("-device", f"virtio-net-pci,netdev=drill{index},mac={mac}{place},romfile={most}")
