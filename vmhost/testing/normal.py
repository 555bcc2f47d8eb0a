"""libvirt's normal form of a domain: what 9.0 with QEMU 7.2 makes of a definition.

For what vmhost's own templates make it is exactly that (tests/testing holds it against a real libvirtd); of other
domains it has what matters here: units, defaults, machine type, the order of elements. Places on the PCI bus are given
on q35.
"""

from __future__ import annotations

import copy
from typing import Final

from lxml import etree

from vmhost.model.disklimits import DiskLimits
from vmhost.model.errors import DriverError
from vmhost.render.parse.units import size_of
from vmhost.testing.xml import E, ensure, ordered, read, to_the_end, write

EMULATOR: Final = "/usr/bin/qemu-system-x86_64"
MACHINES: Final = {"q35": "pc-q35-7.2", "pc": "pc-i440fx-7.2", "": "pc-i440fx-7.2"}
_ROOT: Final = (
    *("name", "uuid", "title", "description", "metadata", "maxMemory", "memory", "currentMemory"),
    *("blkiotune", "memtune", "memoryBacking"),
    *(
        "vcpu",
        "iothreads",
        "iothreadids",
        "cputune",
        "numatune",
        "resource",
        "sysinfo",
        "os",
        "features",
        "cpu",
        "clock",
    ),
    *("on_poweroff", "on_reboot", "on_crash", "pm", "perf", "devices", "seclabel"),
)
_DEVICES: Final = (
    *(
        "emulator",
        "disk",
        "controller",
        "lease",
        "filesystem",
        "interface",
        "smartcard",
        "serial",
        "parallel",
        "console",
    ),
    *("channel", "input", "tpm", "graphics", "sound", "audio", "video", "hostdev", "redirdev", "hub", "watchdog"),
    *("memballoon", "rng", "nvram", "panic", "shmem", "memory", "iommu", "vsock"),
)
_COMMON: Final = ("boot", "alias", "acpi", "rom", "address")
_KNOWN: Final = frozenset({*_ROOT, "genid", "launchSecurity", "keywrap", "idmap", "blkiotune", "memtune", "bootloader"})
_QEMU: Final = "http://libvirt.org/schemas/domain/qemu/1.0"


def normal_form(xml: str, draw_uuid: str = "") -> etree._Element:
    """Return the definition that libvirt keeps of a domain.

    :param draw_uuid: for a domain that comes without one.
    :raises DriverError: it is not a domain, or not a valid one.
    """
    root = read(xml)
    _validate(root)
    ensure(root, "uuid", draw_uuid)
    _memory(root)
    _system(root)
    for tag, text in (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")):
        ensure(root, tag, text)
    ensure(root, "clock", offset="utc")
    _devices(root)
    ordered(root, _ROOT)
    if root.find(f"{{{_QEMU}}}commandline") is not None:
        etree.cleanup_namespaces(root, top_nsmap={"qemu": _QEMU})
    return root


def live_form(definition: str, number: int, *, connected: bool) -> str:
    """Return what libvirt tells of a domain while it runs: its number, terminal, firmware, its agent's channel."""
    root = read(definition)
    root.set("id", str(number))
    for pty in (*root.iterfind("devices/serial[@type='pty']"), *root.iterfind("devices/console[@type='pty']")):
        pty.insert(0, E.source(path=f"/dev/pts/{number}"))
        if pty.tag == "console":
            pty.set("tty", f"/dev/pts/{number}")
    for index, source in enumerate(reversed(root.findall("devices/disk/source")), 1):
        source.set("index", str(index))
    for target in root.iterfind("devices/channel/target[@type='virtio']"):
        target.set("state", "connected" if connected else "disconnected")
    _name_taps(root, number)
    _select_firmware(root)
    return write(root)


def _name_taps(root: etree._Element, number: int) -> None:
    """Give a tap to each NIC on a bridge whose definition names none, as libvirt does."""
    for index, nic in enumerate(root.iterfind("devices/interface[@type='bridge']")):
        if nic.find("target") is None:
            name = f"vnet{number}-{index}" if index else f"vnet{number}"
            nic.append(E.target(dev=name))


def with_metadata(xml: str, element: str, namespace: str) -> str:
    """Return a domain with our metadata element replaced, or taken out when ``element`` is empty."""
    root = read(xml)
    metadata = ensure(root, "metadata")
    for old in metadata.findall(f"{{{namespace}}}*"):
        metadata.remove(old)
    if element:
        metadata.append(read(element))
    if len(metadata) == 0:
        root.remove(metadata)
    ordered(root, _ROOT)
    return write(root)


def with_limits(xml: str, tap: str, inbound: int, outbound: int) -> str:
    """Return a domain with the limits of a NIC replaced; 0 is no limit."""
    root = read(xml)
    for nic in root.iterfind(f"devices/interface/target[@dev='{tap}']/.."):
        for old in nic.findall("bandwidth"):
            nic.remove(old)
        limits = [(tag, size) for tag, size in (("inbound", inbound), ("outbound", outbound)) if size]
        if limits:
            place = nic.find("source") if nic.find("source") is not None else nic.find("mac")
            assert place is not None
            place.addnext(E.bandwidth(*(E(tag, average=str(size)) for tag, size in limits)))
    return write(root)


def with_disk_limits(xml: str, target: str, limits: DiskLimits) -> str:
    """Return a domain with the limits of a disk replaced, where libvirt writes them."""
    root = read(xml)
    for place in root.iterfind(f"devices/disk/target[@dev='{target}']"):
        disk = place.getparent()
        assert disk is not None
        for old in disk.findall("iotune"):
            disk.remove(old)
        if wanted := [(name, value) for name, value in limits.named if value]:
            place.addnext(E.iotune(*(E(name, str(value)) for name, value in wanted)))
    return write(root)


def _validate(root: etree._Element) -> None:
    if root.tag != "domain":
        raise DriverError(f"XML error: unexpected root element <{root.tag!s}>, expecting <domain>")
    name = (root.findtext("name") or "").strip()
    if not name or "/" in name or name in (".", ".."):
        raise DriverError(f"XML error: name {name} cannot be used")
    wrong = [child for child in root if child.tag not in _KNOWN and not str(child.tag).startswith("{")]
    if wrong or root.find("memory") is None or root.find("os/type") is None or root.get("type") is None:
        detail = f"Extra element {wrong[0].tag!s} in interleave" if wrong else "Invalid sequence in interleave"
        raise DriverError(f"XML document failed to validate against schema: {detail}", subject=name)


def _memory(root: etree._Element) -> None:
    memory = ensure(root, "memory")
    ensure(root, "currentMemory", memory.text or "", unit=memory.get("unit", "KiB"))
    sizes = [memory, ensure(root, "currentMemory"), *root.iterfind("maxMemory")]
    for size in sizes:
        size.text = str(size_of(size, "KiB") // 1024)
        size.set("unit", "KiB")
    vcpu = ensure(root, "vcpu", "1")
    if vcpu.get("placement") is None:
        vcpu.set("placement", "static")


def _system(root: etree._Element) -> None:
    kind = root.find("os/type")
    assert kind is not None
    if kind.get("arch") is None:
        kind.set("arch", "x86_64")
    machine = kind.get("machine", "")
    kind.set("machine", MACHINES.get(machine, machine))


def _is_q35(root: etree._Element) -> bool:
    kind = root.find("os/type")
    return kind is not None and "-q35-" in kind.get("machine", "")


def _select_firmware(root: etree._Element) -> None:
    system = root.find("os[@firmware='efi']")
    if system is None:
        return
    del system.attrib["firmware"]
    system.append(E.loader("/usr/share/OVMF/OVMF_CODE_4M.fd", readonly="yes", type="pflash"))
    variables = f"/var/lib/libvirt/qemu/nvram/{root.findtext('name')}_VARS.fd"
    system.append(E.nvram(variables, template="/usr/share/OVMF/OVMF_VARS_4M.fd"))


def _devices(root: etree._Element) -> None:
    devices = ensure(root, "devices")
    ensure(devices, "emulator", EMULATOR)
    _serial(devices)
    _implicit(root, devices)
    ordered(devices, _DEVICES)
    for device in devices:
        to_the_end(device, _COMMON)
    if _is_q35(root):
        _Bus(devices).place_all()


def _serial(devices: etree._Element) -> None:
    for serial in devices.findall("serial"):
        target = ensure(serial, "target")
        target.set("type", target.get("type", "isa-serial"))
        target.set("port", target.get("port", "0"))
        if target.get("type") == "isa-serial" and target.find("model") is None:
            target.append(E.model(name="isa-serial"))
    first = devices.find("serial")
    if first is not None and devices.find("console") is None:
        console = copy.deepcopy(first)
        console.tag = "console"
        for target in console.findall("target"):
            console.replace(target, E.target(type="serial", port="0"))
        devices.append(console)


def _implicit(root: etree._Element, devices: etree._Element) -> None:
    """Add what every x86 machine of QEMU has: keyboard and mouse, sound that goes nowhere, buses that devices need."""
    for kind in ("mouse", "keyboard"):
        if devices.find(f"input[@type='{kind}'][@bus='ps2']") is None:
            devices.append(E.input(type=kind, bus="ps2"))
    if devices.find("audio") is None:
        devices.append(E.audio(id="1", type="none"))
    if _is_q35(root) and devices.find("controller[@type='sata']") is None:
        devices.append(E.controller(type="sata", index="0"))
    channels = devices.findall("channel/target[@type='virtio']")
    if channels and devices.find("controller[@type='virtio-serial']") is None:
        devices.append(E.controller(type="virtio-serial", index="0"))
    for port, target in enumerate(channels, 1):
        channel = target.getparent()
        if channel is not None and channel.find("address") is None:
            channel.append(E.address(type="virtio-serial", controller="0", bus="0", port=str(port)))


class _Bus:
    """The PCI Express bus of a q35 machine: gives each device a root port of its own, as far as there are any."""

    def __init__(self, devices: etree._Element) -> None:
        self._devices = devices
        self._ports = devices.findall("controller[@model='pcie-root-port']")
        taken = {found.get("bus", "") for found in devices.iterfind("*/address[@type='pci']")}
        numbers = (int(port.get("index", "0")) for port in self._ports)
        self._free = [f"0x{number:02x}" for number in sorted(numbers) if f"0x{number:02x}" not in taken]

    def place_all(self) -> None:
        """Place everything that has no place yet, in libvirt's order."""
        for port in self._ports:
            self._place_port(port)
        for sata in self._devices.findall("controller[@type='sata'][@index='0']"):
            self._put(sata, bus="0x00", slot="0x1f", function="0x2")
        for path in (
            *("interface", "controller[@type='virtio-serial']", "disk/target[@bus='virtio']/..", "memballoon", "rng"),
        ):
            for device in self._devices.findall(path):
                if device.find("address") is None and device.get("model") != "none" and self._free:
                    self._put(device, bus=self._free.pop(0), slot="0x00", function="0x0")

    def _place_port(self, port: etree._Element) -> None:
        index = int(port.get("index", "0"))
        slot, function = 1 + (index - 1) // 8, (index - 1) % 8
        if port.find("model") is None:
            port.append(E.model(name="pcie-root-port"))
        if port.find("target") is None:
            port.append(E.target(chassis=str(index), port=hex(7 + index)))
        shared = {"multifunction": "on"} if function == 0 else {}
        self._put(port, bus="0x00", slot=f"0x{slot:02x}", function=hex(function), **shared)

    def _put(self, device: etree._Element, **place: str) -> None:
        if device.find("address") is None:
            device.append(E.address(type="pci", domain="0x0000", **place))
