"""Numbers with units, as libvirt writes them (https://libvirt.org/formatdomain.html#memory-allocation)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from vmhost.render.parse.reading import Node

_POWERS: Final = {"K": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}


def size_of(element: Node | None, unit: str) -> int:
    """Return the bytes that an element's text and ``unit`` say; 0 for no element, no number or an unknown unit.

    ``KB`` is 1000 and ``K`` or ``KiB`` 1024 bytes.

    :param unit: what counts when the attribute is missing.
    """
    if element is None:
        return 0
    return scaled(element.text or "", element.get("unit", unit))


def scaled(text: str, unit: str) -> int:
    """Return the bytes that a number in a unit means; 0 when either cannot be read."""
    number = int_of(text)
    upper = unit.strip().upper()
    if upper in ("", "B", "BYTE", "BYTES"):
        return number
    power = _POWERS.get(upper[0])
    if power is None or upper[1:] not in ("", "B", "IB"):
        return 0
    return number * int((1000 if upper[1:] == "B" else 1024) ** power)


def int_of(text: str | None) -> int:
    """Return a decimal number, or 0 for anything else."""
    plain = (text or "").strip()
    return int(plain) if plain.isascii() and plain.isdecimal() else 0
