"""A domain's XML as values: ours, libvirt's normal form of it, and foreign ones of every kind."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from vmhost.model.disklimits import LIMITS, UNLIMITED, DiskLimits
from vmhost.model.domains import DiskFacts, DomainFacts, NicFacts
from vmhost.render.parse.reading import KEPT, look_into
from vmhost.render.parse.units import int_of, size_of

if TYPE_CHECKING:
    from vmhost.render.parse.reading import Node

DISK_ALIAS: Final = "ua-disk-"
NIC_ALIAS: Final = "ua-nic-"
SEED_ALIAS: Final = "ua-seed"
QEMU_NS: Final = "{http://libvirt.org/schemas/domain/qemu/1.0}"

_SOURCES: Final = ("network", "file", "dev", "dir", "volume", "name", "bridge", "path")


def parse_domain(xml: str | Node) -> DomainFacts:
    """Return what a domain's XML says. NICs that QEMU was told of directly come last.

    ``memory`` is what the guest has (``currentMemory``), ``max_memory`` what it can get without a reboot, by hot-plug
    or by its balloon. In a running domain's XML both are the present values.

    :raises DamagedData: it is not well-formed XML.
    """
    return _parse_text(xml) if isinstance(xml, str) else _parse(xml)


@lru_cache(maxsize=KEPT)
def _parse_text(xml: str) -> DomainFacts:
    return _parse(look_into(xml))


def _parse(root: Node) -> DomainFacts:
    vcpu = root.find("vcpu")
    most = int_of(root.findtext("vcpu")) or 1
    now = most if vcpu is None else int_of(vcpu.get("current")) or most
    memory = size_of(root.find("memory"), "KiB")
    console = root.find("devices/serial/log")
    return DomainFacts(
        uuid=root.findtext("uuid", ""),
        name=root.findtext("name", ""),
        type=root.get("type", ""),
        vcpus=now,
        max_vcpus=most,
        memory=size_of(root.find("currentMemory"), "KiB") or memory,
        max_memory=size_of(root.find("maxMemory"), "KiB") or memory,
        firmware=_firmware(root),
        disks=tuple(_disk(disk) for disk in root.findall("devices/disk")),
        nics=(*(_nic(nic) for nic in root.findall("devices/interface")), *_user_nics(root)),
        serial_log="" if console is None else console.get("file", ""),
        description=root.findtext("description", ""),
    )


def qemu_arguments(root: Node) -> tuple[tuple[str, str], ...]:
    """Return what QEMU is told directly, as pairs of an option and its value (``-device``, ``virtio-net-pci,...``)."""
    values = [arg.get("value", "") for arg in root.findall(f"{QEMU_NS}commandline/{QEMU_NS}arg")]
    return tuple((option, value) for option, value in pairwise(values) if option.startswith("-"))


def properties(value: str) -> dict[str, str]:
    """Return the properties of a QEMU option (``user,id=n,hostfwd=...``); the first word is under the empty key.

    A doubled comma, QEMU's escape for one, never occurs in what we write.
    """
    head, *rest = value.split(",")
    pairs = (part.partition("=") for part in rest)
    return {"": head, **{key: text for key, _, text in pairs}}


def files_of(xml: str | Node) -> set[str]:
    """Return what a definition makes disks and UEFI variables of: what they lie on and copy to, too, as far as it says.

    Each is a path, or what else ``DiskFacts.source`` may be.
    """
    root = look_into(xml)
    sources = [source for disk in root.findall("devices/disk") for source in disk.iter("source")]
    return {*map(_source, sources), root.findtext("os/nvram", "").strip()} - {""}


def alias_of(element: Node) -> str:
    """Return a device's alias, or empty."""
    alias = element.find("alias")
    return "" if alias is None else alias.get("name", "")


def agent_connected(xml: str | Node) -> bool:
    """Whether a running domain's XML says that its guest agent has opened its channel."""
    targets = look_into(xml).findall("devices/channel/target")
    return any(t.get("name") == "org.qemu.guest_agent.0" and t.get("state") == "connected" for t in targets)


def _firmware(root: Node) -> str:
    system, loader = root.find("os"), root.find("os/loader")
    if system is not None and system.get("firmware") == "efi":
        return "uefi"
    return "uefi" if loader is not None and loader.get("type") == "pflash" else "bios"


def _disk(element: Node) -> DiskFacts:
    target, driver, below = element.find("target"), element.find("driver"), element.find("backingStore")
    return DiskFacts(
        target="" if target is None else target.get("dev", ""),
        source=_source(element.find("source")),
        format="" if driver is None else driver.get("type", ""),
        bus="" if target is None else target.get("bus", ""),
        device=element.get("device", "disk"),
        alias=alias_of(element),
        readonly=element.find("readonly") is not None,
        limits=_limits(element.find("iotune")),
        below=() if below is None else tuple(path for source in below.iter("source") if (path := _source(source))),
    )


def _limits(element: Node | None) -> DiskLimits:
    return UNLIMITED if element is None else DiskLimits(*(int_of(element.findtext(name)) for name in LIMITS))


def _nic(element: Node) -> NicFacts:
    mac, model, target = element.find("mac"), element.find("model"), element.find("target")
    mtu = element.find("mtu")
    return NicFacts(
        type=element.get("type", ""),
        source=_source(element.find("source")),
        mac="" if mac is None else mac.get("address", "").lower(),
        model="" if model is None else model.get("type", ""),
        tap="" if target is None else target.get("dev", ""),
        alias=alias_of(element),
        mtu=0 if mtu is None else int_of(mtu.get("size")),
        inbound=_limit(element.find("bandwidth/inbound")),
        outbound=_limit(element.find("bandwidth/outbound")),
    )


def _limit(element: Node | None) -> int:
    return 0 if element is None else int_of(element.get("average"))


def _source(element: Node | None) -> str:
    """Return where a disk or NIC comes from: a path, a name, ``POOL/VOLUME``, ``PROTOCOL:NAME``; empty for none."""
    if element is None:
        return ""
    found = next((element.get(key, "") for key in _SOURCES if element.get(key)), "")
    if element.get("pool"):
        return f"{element.get('pool')}/{found}"
    return f"{element.get('protocol')}:{found}" if element.get("protocol") else found


def _user_nics(root: Node) -> tuple[NicFacts, ...]:
    """Return our NICs on QEMU's user network; the forwarded port is their source."""
    options = [(option, properties(value)) for option, value in qemu_arguments(root)]
    backends = {found.get("id", ""): found for option, found in options if option == "-netdev" and found[""] == "user"}
    return tuple(
        NicFacts(
            type="user",
            source=_forwarded(backends[found["netdev"]]),
            mac=found.get("mac", "").lower(),
            model="virtio" if found[""].startswith("virtio-net") else found[""],
            alias=found.get("id", ""),
            mtu=int_of(found.get("host_mtu")),
        )
        for option, found in options
        if option == "-device" and found.get("netdev") in backends
    )


def _forwarded(backend: dict[str, str]) -> str:
    """Return ``127.0.0.1:2222`` of ``hostfwd=tcp:127.0.0.1:2222-:22``, or empty."""
    return backend.get("hostfwd", "").removeprefix("tcp:").partition("-")[0]
