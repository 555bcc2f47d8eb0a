"""The definition of a guest, made into that of its drill: beside everything else, and with nothing of the host's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from lxml import etree

from vmhost.model.identity import NAMESPACE
from vmhost.render.document import child, drop, read, write
from vmhost.render.metadata import PREFIX
from vmhost.render.parse.domain import QEMU_NS, SEED_ALIAS, alias_of, properties

_ELSEWHERE: Final = (
    *("title", "description", "genid", "metadata", "cputune", "numatune", "memtune", "blkiotune", "memoryBacking"),
    *("seclabel", "resource", "devices/graphics", "devices/video", "devices/hostdev", "devices/redirdev"),
    *("devices/filesystem", "devices/shmem", "devices/tpm", "devices/channel/source", "devices/watchdog"),
)
"""What is of the host, or of the guest's place on it: a drill takes nothing of that."""

_NIC_KEEPS: Final = frozenset({"mac", "model", "alias", "address", "driver", "rom"})


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
    for path in _ELSEWHERE:
        for element in root.findall(path):
            drop(element)
    child(root, "name").text, child(root, "uuid").text = drill.name, drill.uuid
    for tag in ("on_poweroff", "on_crash"):
        child(root, tag).text = "destroy"
    for vcpu in root.findall("vcpu"):
        vcpu.attrib.pop("cpuset", None)
        if drill.cpus:
            vcpu.set("cpuset", drill.cpus)
    _metadata(root, drill)
    _nvram(root, drill.nvram)
    _disks(root, drill)
    _console(root, drill.serial_log)
    for nic in root.findall("devices/interface"):
        mac = nic.find("mac")
        _nic(nic, *drill.nics["" if mac is None else mac.get("address", "")])
    _user_nics(root, drill.forwards)
    return write(root)


def _metadata(root: etree._Element, drill: DrillDomain) -> None:
    mark = etree.SubElement(child(root, "metadata"), f"{{{NAMESPACE}}}drill", nsmap={PREFIX: NAMESPACE})
    mark.set("version", "1")
    mark.set("guest", drill.guest)
    mark.set("point", drill.point)


def _nvram(root: etree._Element, path: str) -> None:
    nvram = root.find("os/nvram")
    if nvram is not None:
        nvram.attrib.clear()
        nvram.text = path or None
        if not path:
            drop(nvram)


def _disks(root: etree._Element, drill: DrillDomain) -> None:
    for disk in root.findall("devices/disk"):
        target = disk.find("target")
        path = drill.disks.get("" if target is None else target.get("dev", ""), "")
        if not path and alias_of(disk) == SEED_ALIAS:
            path = drill.seed
        if path:
            _file(disk, path, "raw" if alias_of(disk) == SEED_ALIAS else "qcow2")
        else:
            drop(disk)


def _file(disk: etree._Element, path: str, form: str) -> None:
    for tag in ("backingStore", "mirror", "iotune", "source"):
        for element in disk.findall(tag):
            drop(element)
    disk.set("type", "file")
    driver = child(disk, "driver")
    driver.set("type", form)
    for name in ("cache", "io", "discard"):
        driver.attrib.pop(name, None)
    driver.addnext(etree.Element("source", file=path))


def _console(root: etree._Element, log: str) -> None:
    """Let the first serial port be logged, whatever it was connected to."""
    for console in root.findall("devices/console"):
        drop(console)
    ports: Sequence[etree._Element] = root.findall("devices/serial")
    for port in ports[1:]:
        drop(port)
    port = ports[0] if ports else etree.SubElement(child(root, "devices"), "serial")
    for element in (*port.findall("source"), *port.findall("protocol"), *port.findall("log")):
        drop(element)
    port.set("type", "pty")
    port.insert(0, etree.Element("log", file=log, append="on"))


def _nic(nic: etree._Element, bridge: str, tap: str) -> None:
    for element in list(nic):
        if element.tag not in _NIC_KEEPS:
            nic.remove(element)
    nic.set("type", "bridge")
    nic.attrib.pop("trustGuestRxFilters", None)
    nic.append(etree.Element("source", bridge=bridge))
    nic.append(etree.Element("target", dev=tap))


def _user_nics(root: etree._Element, forwards: Mapping[str, int]) -> None:
    """Let NICs on QEMU's user network lead nowhere but to the host's loopback, under ports of the drill's own."""
    arguments = root.findall(f"{QEMU_NS}commandline/{QEMU_NS}arg")
    macs = {}
    for argument in arguments:
        found = properties(argument.get("value", ""))
        if "netdev" in found and "mac" in found:
            macs[found["netdev"]] = found["mac"]
    for argument in arguments:
        found = properties(argument.get("value", ""))
        if found.get("") == "user" and found.get("id") in macs:
            port = forwards.get(macs[found["id"]], 0)
            forward = f",hostfwd=tcp:127.0.0.1:{port}-:22" if port else ""
            argument.set("value", f"user,id={found['id']},restrict=on{forward}")
