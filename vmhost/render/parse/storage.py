"""Storage pools and volumes as libvirt describes them."""

from __future__ import annotations

from collections.abc import Iterable

from lxml import etree

from vmhost.model.observed import ObservedPool, ObservedVolume
from vmhost.render.document import read
from vmhost.render.parse.units import size_of


def parse_pool(xml: str, active: bool, volumes: Iterable[str]) -> ObservedPool:
    """Return a pool with its volumes, sorted by name; ``volumes`` are their XML texts.

    :raises DamagedData: a text is not well-formed XML.
    """
    root = read(xml)
    name = root.findtext("name", "")
    return ObservedPool(
        name=name,
        type=root.get("type", ""),
        path=root.findtext("target/path", "").rstrip("/"),
        active=active,
        capacity=size_of(root.find("capacity"), "bytes"),
        available=size_of(root.find("available"), "bytes"),
        volumes=tuple(sorted((_volume(name, read(text)) for text in volumes), key=lambda volume: volume.name)),
    )


def _volume(pool: str, root: etree._Element) -> ObservedVolume:
    form = root.find("target/format")
    return ObservedVolume(
        pool=pool,
        name=root.findtext("name", ""),
        path=root.findtext("target/path", "") or root.findtext("key", ""),
        capacity=size_of(root.find("capacity"), "bytes"),
        allocation=size_of(root.find("allocation"), "bytes"),
        format="" if form is None else form.get("type", ""),
        backing=root.findtext("backingStore/path", ""),
    )
