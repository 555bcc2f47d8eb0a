"""The records of a guest's snapshots, written into its definition; :mod:`vmhost.render.parse.snapshots` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from lxml import etree

from vmhost.model.snapshots import NO_SNAPSHOTS, SNAPSHOTS, Snapshot, Snapshots
from vmhost.render.document import child, read, write

PREFIX: Final = "vmhost-snapshots"


def snapshots_xml(snapshots: Snapshots) -> str:
    """Return the element as text; empty when there never was a snapshot."""
    return "" if snapshots == NO_SNAPSHOTS else etree.tostring(_element(snapshots), encoding="unicode")


def with_snapshots(xml: str, snapshots: Snapshots) -> str:
    """Return a definition with these records instead of those that it has."""
    root = read(xml)
    place = child(root, "metadata")
    for old in place.findall(_tag("snapshots")):
        place.remove(old)
    if snapshots != NO_SNAPSHOTS:
        place.append(_element(snapshots))
    return write(root)


def with_sources(xml: str, sources: Mapping[str, str]) -> str:
    """Return a definition whose disks are other files: ``sources`` maps targets (``vda``) to paths.

    What libvirt noted of the files below the old ones goes; it looks at the new ones itself.
    """
    root = read(xml)
    for disk in root.iterfind("devices/disk"):
        target, source = disk.find("target"), disk.find("source")
        path = "" if target is None else sources.get(target.get("dev", ""), "")
        if not path or source is None:
            continue
        source.set("file", path)
        source.attrib.pop("index", None)
        for below in disk.findall("backingStore"):
            disk.remove(below)
    return write(root)


def _element(snapshots: Snapshots) -> etree._Element:
    root = etree.Element(_tag("snapshots"), nsmap={PREFIX: SNAPSHOTS})
    root.set("version", str(snapshots.version))
    root.set("next", str(snapshots.next))
    _set(root, present=str(snapshots.present or ""), reverted=snapshots.reverted, frozen=snapshots.frozen)
    root.extend(_snapshot(item) for item in snapshots.items)
    return root


def _snapshot(item: Snapshot) -> etree._Element:
    element = etree.Element(_tag("snapshot"))
    _set(element, number=str(item.number), name=item.name, created=item.created, level=str(item.level))
    _set(element, parent=str(item.parent or ""), nvram=item.nvram, why=item.why)
    _set(element, merging="yes" if item.merging else "")
    for kept in item.disks:
        disk = etree.SubElement(element, _tag("disk"))
        _set(disk, id=kept.disk, pool=kept.pool, volume=kept.volume)
    return element


def _tag(name: str) -> str:
    return f"{{{SNAPSHOTS}}}{name}"


def _set(element: etree._Element, **attributes: str) -> None:
    for name, text in attributes.items():
        if text:
            element.set(name, text)
