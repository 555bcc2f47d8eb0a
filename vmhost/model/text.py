"""Text from guests and files made safe for a terminal."""

from __future__ import annotations

from typing import Final

_BIDI: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_KEPT: Final = frozenset("\t")


def sanitize(text: str) -> str:
    """Return text without anything that a terminal would obey: C0 and C1 controls, DEL and bidi controls become
    visible.

    Line feeds count as controls too: pass one line at a time.
    """
    return "".join(char if _plain(char) else _shown(char) for char in text)


def _plain(char: str) -> bool:
    code = ord(char)
    return char in _KEPT or (32 <= code < 127) or (code >= 160 and char not in _BIDI and not 0xD800 <= code <= 0xDFFF)


def _shown(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
