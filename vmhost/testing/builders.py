"""Concise makers of values for tests: a guest, its site, a host that has them. Everything has a plausible default."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from lxml import etree

from vmhost.model.identity import (
    METADATA_VERSION,
    NAMESPACE,
    GuestIdentity,
    GuestMetadata,
    NicIdentity,
    console_log,
    tap_name,
    volume_name,
)
from vmhost.model.image import ImageRecord
from vmhost.model.observed import (
    DomainState,
    Observed,
    ObservedDomain,
    ObservedHost,
    ObservedLink,
    ObservedPool,
    ObservedVolume,
    RawDomain,
)
from vmhost.model.spec import DiskSpec, GuestSpec, NetworkSpec, NicSpec, Site
from vmhost.render.parse.domain import parse_domain
from vmhost.render.parse.metadata import parse_metadata
from vmhost.testing.chance import keypair_of
from vmhost.testing.normal import EMULATOR, normal_form
from vmhost.testing.xml import E, write

NETWORK: Final = "lan"
BRIDGE: Final = "br0"
SUBNET: Final = "10.20.0.0/24"
POOL: Final = "vmhost"
POOL_PATH: Final = "/srv/guests"
LOGS: Final = "/nonexistent/vmhost/logs"
"""As in the layout of a fake host."""
GIB: Final = 1 << 30


def uuid_of(name: str) -> str:
    """Return a UUID that follows from a name."""
    return str(UUID(bytes=sha256(name.encode()).digest()[:16], version=4))


def mac_of(name: str) -> str:
    """Return a MAC that follows from a name."""
    return "52:54:00:" + sha256(name.encode()).digest()[:3].hex(":")


def guest(name: str = "web-01", *, network: str | None = NETWORK, disk: int = 10 * GIB, **more: Any) -> GuestSpec:
    """Return a complete guest; ``more`` are further fields of :class:`GuestSpec`. ``disk`` is in bytes."""
    values: dict[str, Any] = {
        "image": "debian-12",
        "cpus": {"count": 1},
        "memory": "512M",
        "disks": (DiskSpec(id="root", size=disk),),
        "nics": (NicSpec(network=network, id=network),) if network else (),
    }
    return GuestSpec.model_validate({"name": name, **values, **more})


def network(bridge: str = BRIDGE, subnet: str | None = SUBNET, **more: Any) -> NetworkSpec:
    """Return a network on a bridge; its gateway is the first address of the subnet."""
    gateway = str(ipaddress.ip_network(subnet)[1]) if subnet else None
    return NetworkSpec.model_validate({"bridge": bridge, "subnet": subnet, "gateway": gateway, **more})


def site(*guests: GuestSpec, name: str = "shop", **more: Any) -> Site:
    """Return a site of these guests on the network ``lan``, whose bridge the site makes."""
    values: dict[str, Any] = {
        "networks": {NETWORK: network()},
        "bridges": {BRIDGE: {"address": f"{ipaddress.ip_network(SUBNET)[1]}/24"}},
    }
    return Site.model_validate({"name": name, "guests": guests, **values, **more})


def identity(spec: GuestSpec, *, number: int = 10, uuid: str = "", host_key: str = "") -> GuestIdentity:
    """Return the identity of a guest: everything follows from its name; its addresses end in ``number``."""
    drawn = uuid or uuid_of(spec.name)
    nics = tuple(_nic(spec, nic, index, drawn, number) for index, nic in enumerate(spec.nics))
    key = host_key or keypair_of(sha256(spec.name.encode()).digest(), spec.name).public
    return GuestIdentity(uuid=drawn, name=spec.name, instance_id=drawn, host_key=key, nics=nics)


def _nic(spec: GuestSpec, nic: NicSpec, index: int, uuid: str, number: int) -> NicIdentity:
    net = ipaddress.ip_network(SUBNET)
    address = "" if nic.address in ("dhcp", "none") else f"{net[number]}/{net.prefixlen}"
    mac = nic.mac or mac_of(f"{spec.name} {index}")
    return NicIdentity(nic.id or nic.network, nic.network, mac, tap_name(uuid, index), address)


def metadata(spec: GuestSpec, who: GuestIdentity, *, site_name: str = "shop", **more: Any) -> GuestMetadata:
    """Return what vmhost writes into the domain of a guest."""
    disks = (volume_name(who.uuid, disk.id or "root") for disk in spec.disks)
    values: dict[str, Any] = {
        "version": METADATA_VERSION,
        "site": site_name,
        "owner": "ann",
        "applied": "2026-01-01T00:00:00Z",
        "user": "ann",
        "identity": who,
        "spec": spec.model_dump_json(exclude_none=True),
        "volumes": tuple(f"{POOL}/{name}" for name in (*disks, volume_name(who.uuid, "seed", "iso"))),
        "protect": spec.protect,
        "autostart": spec.autostart,
        **more,
    }
    known = GuestMetadata.__dataclass_fields__
    return GuestMetadata(**{name: value for name, value in values.items() if name in known})


def domain_xml(
    spec: GuestSpec, who: GuestIdentity, about: GuestMetadata | None, *, bridge: str = BRIDGE, kind: str = "qemu"
) -> str:
    """Return a domain such as vmhost's templates make, a little shorter; ``about`` None makes it a foreign one."""
    root = E.domain(
        E.name(spec.name),
        E.uuid(who.uuid),
        E.memory(str(spec.memory.size // 1024), unit="KiB"),
        E.vcpu(str(spec.cpus.max or spec.cpus.count), current=str(spec.cpus.count)),
        E.os(E.type("hvm", arch="x86_64", machine="q35")),
        E.features(E.acpi(), E.apic()),
        E.devices(*_devices(spec, who, bridge)),
        type=kind,
    )
    system = root.find("os")
    if spec.firmware == "uefi" and system is not None:
        system.set("firmware", "efi")
    if about is not None:
        root.insert(2, E.metadata(metadata_element(about)))
    return write(root)


def _devices(spec: GuestSpec, who: GuestIdentity, bridge: str) -> Iterable[etree._Element]:
    yield E.emulator(EMULATOR)
    for index, disk in enumerate(spec.disks):
        name = disk.id or "root"
        yield _disk(volume_name(who.uuid, name), "qcow2", f"vd{chr(97 + index)}", f"ua-disk-{name}")
    yield _disk(volume_name(who.uuid, "seed", "iso"), "raw", "vdz", "ua-seed", E.readonly())
    for nic in who.nics:
        yield E.interface(
            E.mac(address=nic.mac),
            E.source(bridge=bridge),
            E.target(dev=nic.tap),
            E.model(type="virtio"),
            E.alias(name=f"ua-nic-{nic.id}"),
            type="bridge",
        )
    yield E.serial(E.log(file=console_log(LOGS, who.uuid), append="on"), type="pty")
    yield E.channel(E.target(type="virtio", name="org.qemu.guest_agent.0"), type="unix")
    yield E.memballoon(model="virtio")


def _disk(volume: str, kind: str, target: str, alias: str, *more: etree._Element) -> etree._Element:
    return E.disk(
        E.driver(name="qemu", type=kind),
        E.source(file=f"{POOL_PATH}/{volume}"),
        E.target(dev=target, bus="virtio"),
        *more,
        E.alias(name=alias),
        type="file",
        device="disk",
    )


def metadata_element(about: GuestMetadata) -> etree._Element:
    """Return our element of a domain's metadata."""
    who = about.identity
    root = etree.Element(_ours("guest"), {"version": str(about.version)}, nsmap={"vmhost": NAMESPACE})
    _add(root, "site", about.site)
    _add(root, "owner", about.owner)
    _add(root, "applied", about.applied, user=about.user, command=about.command)
    _add(root, "state", protect="yes" if about.protect else "", pending="yes" if about.pending else "")
    identified = _add(root, "identity", uuid=who.uuid, name=who.name, **{"instance-id": who.instance_id})
    _add(identified, "host-key", who.host_key)
    for nic in who.nics:
        port = str(nic.ssh_port) if nic.ssh_port else ""
        place = {"id": nic.id, "network": nic.network, "mac": nic.mac, "tap": nic.tap, "address": nic.address}
        vlans = {"pvid": str(nic.pvid) if nic.pvid else "", "tagged": nic.tagged, "bridge": nic.bridge}
        _add(identified, "nic", **place, **vlans, reach=nic.reach, **{"ssh-port": port})
    for volume in about.volumes:
        _add(root, "volume", volume)
    _add(root, "spec", about.spec)
    return root


def _add(parent: etree._Element, name: str, text: str = "", /, **attributes: str) -> etree._Element:
    element = etree.SubElement(parent, _ours(name), {key: value for key, value in attributes.items() if value})
    element.text = text or None
    return element


def _ours(name: str) -> str:
    return f"{{{NAMESPACE}}}{name}"


def observed_domain(
    spec: GuestSpec, *, running: bool = True, ours: bool = True, number: int = 10, **more: Any
) -> ObservedDomain:
    """Return a guest as a domain of the host; ``more`` are further fields of :class:`RawDomain`."""
    who = identity(spec, number=number)
    text = domain_xml(spec, who, metadata(spec, who) if ours else None)
    xml = write(normal_form(text))
    state = DomainState.RUNNING if running else DomainState.SHUTOFF
    raw = RawDomain(uuid=who.uuid, name=spec.name, state=state, xml=xml, live_xml=xml if running else "", **more)
    return ObservedDomain(raw, parse_domain(xml), parse_metadata(xml))


def observed_pool(*specs: GuestSpec, name: str = POOL, path: str = POOL_PATH) -> ObservedPool:
    """Return a storage pool with the volumes of these guests."""
    found: list[ObservedVolume] = []
    for spec in specs:
        uuid = uuid_of(spec.name)
        for disk in spec.disks:
            file = volume_name(uuid, disk.id or "root")
            found.append(ObservedVolume(name, file, f"{path}/{file}", disk.size, 200_704, "qcow2"))
        seed = volume_name(uuid, "seed", "iso")
        found.append(ObservedVolume(name, seed, f"{path}/{seed}", 1 << 19, 1 << 19, "iso"))
    return ObservedPool(name, "dir", path, active=True, capacity=200 * GIB, available=150 * GIB, volumes=tuple(found))


def observed_bridge(name: str = BRIDGE, *, alias: str = "vmhost:shop", address: str = "10.20.0.1/24") -> ObservedLink:
    """Return a bridge of the host."""
    addresses = (address,) if address else ()
    return ObservedLink(name, 2, "bridge", mac_of(name), 1500, up=True, carrier=True, alias=alias, addresses=addresses)


def image(name: str = "debian-12", *, virtual_size: int = 2 * GIB) -> ImageRecord:
    """Return an image that boots by BIOS and by UEFI."""
    digest = sha256(name.encode()).hexdigest()
    return ImageRecord(
        name=name,
        id=digest,
        path=Path(f"/var/lib/vmhost/images/{name}-{digest[:12]}.qcow2"),
        format="qcow2",
        virtual_size=virtual_size,
        size=virtual_size // 4,
        sha256=sha256(digest.encode()).hexdigest(),
        created="2026-01-01T00:00:00Z",
        firmware=frozenset({"bios", "uefi"}),
        source="build",
    )


def observed_host(**more: Any) -> ObservedHost:
    """Return a host of 8 CPUs and 32 GiB without KVM; ``more`` are fields of :class:`ObservedHost`."""
    values: dict[str, Any] = {
        "uri": "qemu:///system",
        "driver": "QEMU",
        "hostname": "host",
        "libvirt_version": 9_000_000,
        "hypervisor_version": 7_002_000,
        "architecture": "x86_64",
        "cpus": 8,
        "memory": 32 * GIB,
        "kvm": False,
        "local": True,
        "privileged": True,
        "emulator": EMULATOR,
        "machines": ("pc-q35-7.2",),
        "uefi": True,
    }
    return ObservedHost(**{**values, **more})


def observed(*guests: GuestSpec, running: bool = True, **more: Any) -> Observed:
    """Return a host that has these guests as vmhost makes them; ``more`` are fields of :class:`Observed`."""
    values: dict[str, Any] = {
        "host": observed_host(),
        "domains": tuple(
            observed_domain(spec, running=running, number=number) for number, spec in enumerate(guests, 10)
        ),
        "pools": (observed_pool(*guests),),
        "links": (observed_bridge(),),
        "images": (image(),),
    }
    return Observed(**{**values, **more})
