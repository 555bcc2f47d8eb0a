"""XML of storage volumes and pools (https://libvirt.org/formatstorage.html)."""

from __future__ import annotations

from typing import Literal

from lxml import etree

from vmhost.model.errors import UsageError
from vmhost.render.document import write


def volume_xml(
    name: str,
    capacity: int,
    *,
    format: Literal["qcow2", "raw"],  # noqa: A002 - libvirt's word
    backing: str = "",
    backing_format: str = "",
    mode: str = "0600",
) -> str:
    """Return the XML of a new volume that takes space only as it is written.

    Formats are always explicit, the backing file's too: a guess reads what a guest wrote (CVE-2024-32498). qcow2 is of
    version 3 (``compat`` 1.1): version 2, libvirt's default here, holds no bitmaps, so no incremental backup. Refcounts
    are not lazy: that gains nothing with our cache modes, and after a power cut the image must be repaired to open.

    :param capacity: in bytes, as the guest sees it.
    :param backing: path of the backing file, or empty.
    :param mode: of the file, octal.
    :raises UsageError: a backing file without its format, or under a raw volume.
    """
    if bool(backing) != bool(backing_format) or (backing and format != "qcow2"):
        raise UsageError("a backing file needs its format, and a qcow2 volume on top", subject=name)
    root = etree.Element("volume", type="file")
    _add(root, "name", name)
    _add(root, "capacity", str(capacity), unit="bytes")
    _add(root, "allocation", "0", unit="bytes")
    target = _add(root, "target")
    _add(target, "format", type=format)
    _add(_add(target, "permissions"), "mode", mode)
    if format == "qcow2":
        _add(target, "compat", "1.1")
    if backing:
        store = _add(root, "backingStore")
        _add(store, "path", backing)
        _add(store, "format", type=backing_format)
    return write(root)


def pool_xml(name: str, path: str) -> str:
    """Return the XML of a directory pool. Its directory can be passed through by QEMU, and listed by its owner only.

    :param path: absolute path of the directory.
    """
    root = etree.Element("pool", type="dir")
    _add(root, "name", name)
    target = _add(root, "target")
    _add(target, "path", path)
    _add(_add(target, "permissions"), "mode", "0711")
    return write(root)


def _add(parent: etree._Element, tag: str, text: str = "", **attributes: str) -> etree._Element:
    element = etree.SubElement(parent, tag, attributes)
    element.text = text or None
    return element
