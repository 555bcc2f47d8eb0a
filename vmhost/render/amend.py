"""A definition changed in what vmhost owns; what others put there stays. Text in, text out.

Every function returns the document in one form (:func:`vmhost.render.document.write`), so a change to what already is
gives back the same text. To take a device out that is not there is no fault.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

from lxml import etree

from vmhost.model.errors import NotFound, Refused
from vmhost.model.identity import NAMESPACE, GuestMetadata, NicIdentity
from vmhost.render.document import child, drop, read, write
from vmhost.render.domain import MEMORY_SLOTS
from vmhost.render.metadata import metadata_element
from vmhost.render.parse.domain import DISK_ALIAS, NIC_ALIAS, SEED_ALIAS, alias_of
from vmhost.render.parse.units import int_of
from vmhost.render.templates import Templates
from vmhost.render.usernet import drop_user_nic, set_user_nic
from vmhost.render.views import (
    DISK,
    MOST_DISKS,
    NIC,
    DiskPath,
    disk_view,
    kib_a_second,
    nic_view,
    target_name,
)

if TYPE_CHECKING:
    from vmhost.model.spec import NetworkSpec

_KIB = 1024
_HOTPLUGGED = "devices/memory"


def normal(xml: str) -> str:
    """Return a definition unchanged, in the form that this module writes.

    :raises DamagedData: it is not well-formed XML; as every function here.
    """
    return write(read(xml))


def with_name(xml: str, name: str) -> str:
    """Return the definition under another name; its title follows if it was ours (``SITE/NAME``)."""
    root = read(xml)
    old, title = root.findtext("name", ""), root.find("title")
    child(root, "name").text = name
    if title is not None and (title.text or "").endswith(f"/{old}"):
        title.text = f"{(title.text or '').removesuffix(old)}{name}"
    return write(root)


def with_metadata(xml: str, metadata: GuestMetadata) -> str:
    """Return the definition with our metadata element replaced; other namespaces' elements stay.

    :raises UsageError: a text holds what XML cannot hold.
    """
    root = read(xml)
    place = child(root, "metadata")
    new = metadata_element(metadata)
    old = place.find(f"{{{NAMESPACE}}}guest")
    if old is None:
        place.append(new)
    else:
        place.replace(old, new)
    return write(root)


def with_memory(xml: str, size: int, maximum: int) -> str:
    """Return the definition with that memory at boot and at most, in bytes; see the template ``parts/memory.xml.j2``.

    :raises Refused: memory was plugged in for good, or there are several NUMA cells: what belongs where is not ours.
    """
    root = read(xml)
    _check_single_cell(root)
    if root.find(_HOTPLUGGED) is not None:
        text = "memory modules are plugged in for good; detach them first"
        raise Refused(text, subject=root.findtext("name", ""), hint=f"virsh edit {root.findtext('name', '')}")
    for tag in ("memory", "currentMemory"):
        _set_kib(child(root, tag), size)
    _set_most_memory(root, size, maximum)
    return write(root)


def with_vcpus(xml: str, count: int, maximum: int) -> str:
    """Return the definition with that many vCPUs at boot and at most; topology and NUMA cell follow the maximum.

    What libvirt noted of single vCPUs, which of them are on, is left out: it follows anew from the count. Pins of vCPUs
    that there are no more go.

    :raises Refused: there are several NUMA cells: which vCPU belongs where is not ours to say.
    """
    root = read(xml)
    _check_single_cell(root)
    vcpu = child(root, "vcpu")
    if (int_of(vcpu.get("current")) or int_of(vcpu.text)) != count or int_of(vcpu.text) != maximum:
        drop(root.find("vcpus"))
    vcpu.text = str(maximum)
    vcpu.attrib.pop("current", None)
    if count != maximum:
        vcpu.set("current", str(count))
    _set_topology(root, maximum)
    for cell in root.findall("cpu/numa/cell"):
        cell.set("cpus", _span(maximum))
    for pin in root.findall("cputune/vcpupin"):
        if int_of(pin.get("vcpu")) >= maximum:
            drop(pin)
    return write(root)


def with_disk_added(xml: str, disk: DiskPath, templates: Templates) -> str:
    """Return the definition with one more disk, on the lowest free target; one that is there gets the path, and nothing
    is left of what libvirt noted of the files below another one.

    :raises UsageError: the disk's template is wrong.
    :raises Refused: there is no room for another disk.
    """
    root = read(xml)
    devices = child(root, "devices")
    old = _device(devices, "disk", f"{DISK_ALIAS}{disk.id}")
    if old is not None:
        return _with_source(root, old, disk)
    element = _rendered(templates, DISK, disk=disk_view(disk, _free_target(devices)))
    seed = _device(devices, "disk", SEED_ALIAS)
    if seed is None:
        _insert(devices, "disk", element)
    else:
        seed.addprevious(element)
    return write(root)


def with_disk_removed(xml: str, disk_id: str) -> str:
    """Return the definition without a disk; its volume is not touched."""
    root = read(xml)
    drop(_device(child(root, "devices"), "disk", f"{DISK_ALIAS}{disk_id}"))
    return write(root)


def with_nic_added(xml: str, nic: NicIdentity, network: NetworkSpec, templates: Templates) -> str:
    """Return the definition with one more NIC after the others; one that is there is changed.

    :raises UsageError: the NIC's template is wrong.
    :raises Refused: there is no room for another NIC on a user network.
    """
    root = read(xml)
    _drop_other_kind(root, nic, network)
    if network.type == "user":
        set_user_nic(root, nic, network, templates)
        return write(root)
    devices = child(root, "devices")
    old = _device(devices, "interface", f"{NIC_ALIAS}{nic.id}")
    if old is None:
        _insert(devices, "interface", _rendered(templates, NIC, nic=nic_view(nic, network)))
    else:
        _change_nic(old, nic, network)
    return write(root)


def with_nic_changed(xml: str, nic: NicIdentity, network: NetworkSpec, templates: Templates) -> str:
    """Return the definition with a NIC's MAC, bridge, tap and MTU set; its PCI address and what else it has stay.

    A NIC that is not there is added. Errors: as :func:`with_nic_added`.
    """
    return with_nic_added(xml, nic, network, templates)


def with_nic_removed(xml: str, nic_id: str) -> str:
    """Return the definition without a NIC."""
    root = read(xml)
    drop(_device(child(root, "devices"), "interface", f"{NIC_ALIAS}{nic_id}"))
    drop_user_nic(root, nic_id)
    return write(root)


def device_xml(xml: str, alias: str) -> str:
    """Return one device of a definition by its alias (``ua-disk-root``), as libvirt attaches it to a running guest.

    :raises NotFound: there is no such device.
    """
    root = read(xml)
    for element in root.findall("devices/*"):
        if alias_of(element) == alias:
            return write(deepcopy(element))
    raise NotFound(f"it has no device {alias}", subject=root.findtext("name", ""), hint="vmhost guest show NAME")


def with_link_down(device: str) -> str:
    """Return a NIC as it is plugged in: with its link down, so that nothing passes before its port is in its VLANs."""
    root = read(device)
    child(root, "link").set("state", "down")
    return write(root)


def _check_single_cell(root: etree._Element) -> None:
    cells = len(root.findall("cpu/numa/cell"))
    if cells > 1:
        name = root.findtext("name", "")
        raise Refused(f"it has {cells} NUMA cells", subject=name, hint=f"virsh edit {name}")


def _set_kib(element: etree._Element, size: int) -> None:
    element.set("unit", "KiB")
    element.text = str(size // _KIB)


def _set_most_memory(root: etree._Element, size: int, maximum: int) -> None:
    most, numa = root.find("maxMemory"), root.find("cpu/numa")
    if maximum <= size:
        # The cell was there for hot-plug only, and says nothing without it.
        drop(most)
        drop(numa)
        return
    if most is None:
        most = etree.Element("maxMemory", slots=str(MEMORY_SLOTS))
        child(root, "memory").addprevious(most)
    _set_kib(most, maximum)
    cell = child(child(child(root, "cpu"), "numa"), "cell")
    cell.set("id", cell.get("id", "0"))
    cell.set("cpus", _span(int_of(root.findtext("vcpu")) or 1))
    cell.set("memory", str(size // _KIB))
    cell.set("unit", "KiB")


def _span(count: int) -> str:
    """Return the numbers of so many vCPUs as libvirt writes them: ``0`` or ``0-3``."""
    return "0" if count == 1 else f"0-{count - 1}"


def _set_topology(root: etree._Element, maximum: int) -> None:
    """Make a topology, if there is one, hold so many vCPUs: other cores if that comes out even, else one socket."""
    topology = root.find("cpu/topology")
    if topology is None:
        return
    per_core = 1
    for part in ("sockets", "dies", "clusters", "threads"):
        per_core *= int_of(topology.get(part)) or 1
    if maximum % per_core:
        for part in ("sockets", "dies", "clusters", "threads"):
            if topology.get(part):
                topology.set(part, "1")
        per_core = 1
    topology.set("cores", str(maximum // per_core))


def _free_target(devices: etree._Element) -> int:
    taken = {target.get("dev") for target in devices.findall("disk/target")}
    free = next((index for index in range(MOST_DISKS) if target_name(index) not in taken), None)
    if free is None:
        raise Refused(f"it has {MOST_DISKS} disks already", hint="vmhost guest show NAME")
    return free


def _with_source(root: etree._Element, element: etree._Element, disk: DiskPath) -> str:
    source = child(element, "source")
    if source.get("file") != disk.path:
        drop(element.find("backingStore"))  # QEMU would lay the new file on what the old one lay on
    source.set("file", disk.path)
    child(element, "driver").set("type", disk.format)
    return write(root)


def _rendered(templates: Templates, name: str, **values: object) -> etree._Element:
    """Return the one element that a part renders to."""
    return read(templates.render(name, **values))


def _device(devices: etree._Element, tag: str, alias: str) -> etree._Element | None:
    return next((element for element in devices.findall(tag) if alias_of(element) == alias), None)


def _insert(devices: etree._Element, tag: str, element: etree._Element) -> None:
    """Put a device after the last one of its kind, so that the order of the others stays."""
    others = devices.findall(tag)
    if others:
        others[-1].addnext(element)
    else:
        devices.append(element)


def _change_nic(element: etree._Element, nic: NicIdentity, network: NetworkSpec) -> None:
    child(element, "mac").set("address", nic.mac)
    child(element, "source").set("bridge", network.bridge or "")
    child(element, "target").set("dev", nic.tap)
    _set_limits(element, kib_a_second(nic.inbound), kib_a_second(nic.outbound))
    if network.mtu:
        child(element, "mtu").set("size", str(network.mtu))
    else:
        drop(element.find("mtu"))


def _set_limits(element: etree._Element, inbound: int, outbound: int) -> None:
    """Set the averages of a NIC's limits; what else others have written there stays as long as there is a limit."""
    bandwidth = element.find("bandwidth")
    if bandwidth is None:
        if not (inbound or outbound):
            return
        bandwidth = etree.Element("bandwidth")
        child(element, "source").addnext(bandwidth)
    for tag, average in (("inbound", inbound), ("outbound", outbound)):
        if average:
            child(bandwidth, tag).set("average", str(average))
        else:
            drop(bandwidth.find(tag))
    if len(bandwidth) == 0:
        drop(bandwidth)


def _drop_other_kind(root: etree._Element, nic: NicIdentity, network: NetworkSpec) -> None:
    """Take a NIC out that moves between a bridge and a user network: the two have nothing in common."""
    if network.type == "user":
        drop(_device(child(root, "devices"), "interface", f"{NIC_ALIAS}{nic.id}"))
    else:
        drop_user_nic(root, nic.id)
