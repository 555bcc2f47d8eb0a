"""XML documents: read without resolving or fetching anything, written in one form."""

from __future__ import annotations

from lxml import etree

from vmhost.model.errors import DamagedData


def read(xml: str | etree._Element) -> etree._Element:
    """Return the root of a document; an element is returned as it is.

    :raises DamagedData: it is not well-formed XML; the message has libxml2's words and the line.
    """
    if not isinstance(xml, str):
        return xml
    # libxml2 reads an encoding declaration of its own accord; text is always UTF-8 here.
    parser = etree.XMLParser(encoding="utf-8", resolve_entities=False, no_network=True, remove_blank_text=True)
    try:
        return etree.fromstring(xml.encode("utf-8"), parser)
    except (etree.XMLSyntaxError, UnicodeEncodeError) as error:
        raise DamagedData(f"not well-formed XML: {error}") from error


def write(root: etree._Element) -> str:
    """Return an element as text, indented by two spaces as libvirt does; ``write(read(x))`` is a fixed point."""
    etree.indent(root, space="  ")
    return etree.tostring(root, encoding="unicode", with_tail=False) + "\n"


def same(one: str, other: str) -> bool:
    """Whether two documents say the same (Canonical XML 1.0), whatever their quotes and indentation."""
    return etree.tostring(read(one), method="c14n") == etree.tostring(read(other), method="c14n")


def child(parent: etree._Element, tag: str) -> etree._Element:
    """Return the first child of that name; it is appended when there is none."""
    found = parent.find(tag)
    return etree.SubElement(parent, tag) if found is None else found


def drop(element: etree._Element | None) -> None:
    """Take an element out of its document; None, one that was not found, is no fault."""
    parent = None if element is None else element.getparent()
    if element is not None and parent is not None:
        parent.remove(element)
