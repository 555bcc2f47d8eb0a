"""The little XML that the driver itself reads and writes: names, a pool, and our metadata as libvirt takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vmhost.model.errors import DriverError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


class Label(NamedTuple):
    """How an object is called in its XML; ``uuid`` is empty when libvirt is to choose one."""

    name: str
    uuid: str


def label_of(xml: str) -> Label:
    """Return the name and UUID at the top of a domain or volume.

    :raises DriverError: it is not XML.
    """
    root = _root(xml)
    return Label((root.findtext("name") or "").strip(), (root.findtext("uuid") or "").strip().lower())


def pool_xml(name: str, path: str) -> str:
    """Return a directory pool (https://libvirt.org/formatstorage.html)."""
    from xml.etree.ElementTree import Element, SubElement, tostring

    pool = Element("pool", type="dir")
    SubElement(pool, "name").text = name
    SubElement(SubElement(pool, "target"), "path").text = path
    return tostring(pool, encoding="unicode")


def unprefixed(xml: str, namespace: str) -> str:
    """Return a metadata element without its namespace: libvirt adds that itself, and refuses one that is there.

    :raises DriverError: it is not XML.
    """
    from xml.etree.ElementTree import tostring

    root = _root(xml)
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{namespace}}}")
    return tostring(root, encoding="unicode")


def raw_capacity(volume: str) -> int:
    """Return the bytes of a raw volume, or 0 for one of another format."""
    root = _root(volume)
    found = root.find("target/format")
    return int(root.findtext("capacity") or 0) if found is None or found.get("type") in ("raw", "iso") else 0


def disks_of(domain: str) -> tuple[str, ...]:
    """Return the files and block devices that are the disks of a domain."""
    sources = _root(domain).iterfind("devices/disk/source")
    return tuple(place for source in sources if (place := source.get("file") or source.get("dev")))


def places_of(domain: str) -> tuple[str, ...]:
    """Return what the disks of a domain are: files, block devices, and ``POOL/VOLUME``."""
    return (*disks_of(domain), *(f"{source.get('pool')}/{source.get('volume')}" for source in _in_pools(domain)))


def uses(domain: str, path: str) -> bool:
    """Whether a running domain has a file open, one that lies on it, or copies to it: its live XML names them all."""
    return any(path in (source.get("file"), source.get("dev")) for source in _root(domain).iter("source"))


def agent_connected(domain: str) -> bool:
    """Whether a running domain's XML says that the guest agent has opened its channel."""
    targets = _root(domain).iterfind("devices/channel/target")
    return any(t.get("name") == "org.qemu.guest_agent.0" and t.get("state") == "connected" for t in targets)


def _in_pools(domain: str) -> list[Element]:
    return [source for source in _root(domain).iterfind("devices/disk/source") if source.get("pool")]


def _root(xml: str) -> Element:
    from xml.etree.ElementTree import ParseError, fromstring

    try:
        return fromstring(xml)  # noqa: S314 - our renderer's or libvirt's own; expat itself stops entity bombs
    except ParseError as error:
        raise DriverError(f"not XML: {error}", hint="vmhost host doctor") from error
