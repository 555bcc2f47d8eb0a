"""XML in and out, as libvirt 9.0 on QEMU 7.2 takes and gives it."""

from __future__ import annotations

from collections.abc import Iterable

from lxml import etree
from lxml.builder import ElementMaker

from vmhost.model.errors import DriverError

E = ElementMaker()


def read(text: str) -> etree._Element:
    """Return the root of a document, without the blanks between elements. :raises DriverError: it is not XML."""
    parser = etree.XMLParser(encoding="utf-8", resolve_entities=False, no_network=True, remove_blank_text=True)
    try:
        return etree.fromstring(text.encode("utf-8"), parser)
    except (etree.XMLSyntaxError, UnicodeEncodeError) as error:
        raise DriverError(f"(domain_definition):1: {error}", hint="vmhost host doctor") from error


def write(root: etree._Element) -> str:
    """Return an element as text, indented as libvirt does."""
    etree.indent(root, space="  ")
    return etree.tostring(root, encoding="unicode", with_tail=False) + "\n"


def ordered(parent: etree._Element, tags: Iterable[str]) -> None:
    """Sort the children by their tags; those of other tags come last, in the order that they have."""
    rank = {tag: number for number, tag in enumerate(tags)}
    children = sorted(parent, key=lambda child: rank.get(str(child.tag), len(rank)))
    for child in children:
        parent.append(child)


def to_the_end(parent: etree._Element, tags: Iterable[str]) -> None:
    """Move children to the end, in the order of their tags."""
    for tag in tags:
        for child in parent.findall(tag):
            parent.append(child)


def ensure(parent: etree._Element, tag: str, text: str = "", **attributes: str) -> etree._Element:
    """Return the first child of that tag; it is made when there is none."""
    found = parent.find(tag)
    if found is None:
        found = etree.SubElement(parent, tag, attributes)
        found.text = text or None
    return found
