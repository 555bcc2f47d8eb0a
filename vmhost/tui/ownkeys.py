"""Keys of one's own: a file of them against the key map; what is wrong is left out and told, the rest holds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final, NamedTuple

from textual.keys import Keys, _character_to_key

from vmhost.model.errors import Fault
from vmhost.model.units import shown as quoted
from vmhost.tui.keymap import EVERYWHERE, KEYS, LISTS, Key, as_own, shown

if TYPE_CHECKING:
    from vmhost.ops.preferences import OwnKeys

NAMES: Final = frozenset(key.name for key in KEYS if key.name)
SCREENS: Final = tuple(dict.fromkeys(place for key in KEYS for place in key.places if place not in (EVERYWHERE, LISTS)))

_KNOWN: Final = frozenset(key.value for key in Keys if key.value.isidentifier() or "+" in key.value)
_COMBINED: Final = re.compile(r"(ctrl|alt|shift)\+(.+)")
_FIXED: Final = ("ctrl+c", "ctrl+q", "escape")
_ALWAYS: Final = "it always leaves or goes back"
_SAME: Final = {"ctrl+i": "tab", "ctrl+m": "enter", "ctrl+j": "enter", "ctrl+h": "backspace"}
"""What a terminal cannot tell apart."""

_FORM: Final = "form"


class Chosen(NamedTuple):
    """The keys that hold, by name as in the key map, and what is wrong with the others, by line."""

    keys: Mapping[str, str]
    faults: tuple[Fault, ...]


def choose(own: OwnKeys) -> Chosen:
    """Return what of a file of keys can hold."""
    faults = list(own.faults)
    keys: dict[str, str] = {}
    for name, words in own.keys.items():
        found = [_read(word) for word in words]
        wrong = _unknown(name) or next((why for key, why in found if not key), "") or _in_form(name, found)
        if wrong:
            faults.append(Fault(name, wrong, own.lines.get(name, 0)))
        else:
            keys[name] = ",".join(dict.fromkeys(key for key, _ in found))
    while clashes := _clashes(keys):
        for name, why in clashes.items():
            faults.append(Fault(name, why, own.lines.get(name, 0)))
            del keys[name]
    return Chosen(keys, tuple(sorted(faults, key=lambda fault: fault.line)))


def _unknown(name: str) -> str:
    if name in NAMES:
        return ""
    near = get_close_matches(name, NAMES, 1)
    return f"nothing is called so{f'; did you mean {near[0]}?' if near else ''}"


def _read(word: str) -> tuple[str, str]:
    """Return a key as the toolkit calls it, or what is wrong with it."""
    if len(word) == 1:
        return (_character_to_key(word), "") if word.isprintable() else ("", f"{quoted(word)} is no key")
    key = word.lower()
    key = {"esc": "escape", "pgup": "pageup", "pgdn": "pagedown", "del": "delete", "ins": "insert"}.get(key, key)
    if key in _FIXED:
        return "", f"{key} cannot be given away: {_ALWAYS}"
    if key in _SAME:
        return "", f"a terminal cannot tell {key} from {_SAME[key]}"
    combined = _COMBINED.fullmatch(key)
    if key in _KNOWN or (combined and (len(combined[2]) == 1 or combined[2] in _KNOWN)):
        return key, ""
    return "", f"{quoted(word)} is no key: write one character, or f5, ctrl+x, alt+x, home, pageup, space"


def _in_form(name: str, found: Sequence[tuple[str, str]]) -> str:
    letters = [key for key, _ in found if ("+" not in key and key not in _KNOWN) or key == "space"]
    if name.startswith(f"{_FORM}.") and letters:
        return f"in a form {shown(letters[0])} is text: take ctrl+ something, or f5"
    return ""


def _clashes(own: Mapping[str, str]) -> dict[str, str]:
    """Return the own keys that mean two things on one screen, and why."""
    found: dict[str, str] = {}
    for screen in SCREENS:
        owners: dict[str, Key] = {}
        for key in _of(screen):
            for part in _parts(as_own(key, own).keys):
                other = owners.setdefault(part, key)
                if other is key or not (key.name in own or other.name in own):
                    continue
                for mine, its in ((key, other), (other, key)):
                    if mine.name in own:
                        found.setdefault(mine.name, f"{shown(part)} is taken there: {its.words}")
    return found


def _of(screen: str) -> Iterator[Key]:
    for key in KEYS:
        if screen in key.places or (key.where in (LISTS, EVERYWHERE) and screen != _FORM):
            yield key


def _parts(keys: str) -> Iterator[str]:
    """Yield the single keys of an entry of the key map."""
    if " ... " in keys:
        first, last = keys.split(" ... ")
        yield from (str(number) for number in range(int(first), int(last) + 1))
        return
    for group in keys.split(" / "):
        for part in group.split(","):
            yield _character_to_key(part) if len(part) == 1 else part
