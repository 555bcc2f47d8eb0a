"""XML that is only looked into: by Python's own parser, since listings and libvirt's hook wait for its import."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final
from xml.etree.ElementTree import Element, ParseError, fromstring

from vmhost.model.errors import DamagedData

if TYPE_CHECKING:
    from lxml import etree

    Node = Element | etree._Element
    """An element of a document, whoever parsed it."""

KEPT: Final = 8
"""How many documents are kept as they were read: whoever plans looks into the same definition half a dozen times."""


def look_into(xml: str | Node) -> Node:
    """Return the root of a document, which nobody changes; an element is returned as it is. Nothing is resolved or
    fetched.

    :raises DamagedData: it is not well-formed XML, or uses an entity that comes from elsewhere.
    """
    if not isinstance(xml, str):
        return xml
    try:
        return _read(xml)
    except (ParseError, UnicodeEncodeError) as error:
        raise DamagedData(f"not well-formed XML: {error}") from error


@lru_cache(maxsize=KEPT)
def _read(xml: str) -> Element:
    return fromstring(xml)  # noqa: S314 - libvirt's or our own; expat itself stops entity bombs
