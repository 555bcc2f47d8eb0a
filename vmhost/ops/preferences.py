"""What one person likes the terminal interface to be: keys of their own, which they write, and how lists looked last,
which is remembered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from vmhost.model.errors import Absent, Fault

if TYPE_CHECKING:
    from vmhost.ops.yamlfile import Tree

KEYS_FILE: Final = "keys.yaml"
VIEW_FILE: Final = "tui.json"
VERSION: Final = 1
_LIMIT: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class View:
    """How the list of guests looks: its columns in order (none: the usual ones), and what it is sorted by."""

    columns: tuple[str, ...] = ()
    sort: str = ""
    reverse: bool = False


@dataclass(frozen=True, slots=True)
class OwnKeys:
    """What a file of keys says: the keys of each action, the line of each, and what is wrong with the file's form."""

    keys: Mapping[str, tuple[str, ...]]
    lines: Mapping[str, int]
    faults: tuple[Fault, ...] = ()


class Preferences:
    """The files of one person.

    :param keys: the file of own keys; need not be there.
    :param view: where the view is remembered.
    """

    def __init__(self, keys: Path, view: Path) -> None:
        self.keys_file = keys
        self.view_file = view
        self._lock = Lock()
        self._wanted = View()

    def view(self) -> View:
        """Return the view that is remembered, the usual one when there is none or its file makes no sense.

        :raises DamagedData: the file is torn or edited; :raises PermissionDenied: it may not be read.
        """
        from vmhost.drivers.files import read_state

        try:
            data = read_state(self.view_file, newest=VERSION).data
        except Absent:
            return View()
        columns, sort = data.get("columns"), data.get("sort")
        named = columns if isinstance(columns, list) else []
        return View(
            tuple(name for name in named if isinstance(name, str)),
            sort if isinstance(sort, str) else "",
            data.get("reverse") is True,
        )

    def keep(self, view: View) -> None:
        """Remember a view; of several at once the latest is kept. :raises DriverError: it cannot be written."""
        from vmhost.drivers.files import write_state

        self._wanted = view
        with self._lock:
            now = self._wanted
            data = {"columns": list(now.columns), "sort": now.sort, "reverse": now.reverse}
            write_state(self.view_file, data, version=VERSION)

    def own_keys(self) -> OwnKeys:
        """Return the keys that the person chose; what is wrong with the file is in it, never raised."""
        from vmhost.ops.textfile import TextFault, read_text

        try:
            text = read_text(self.keys_file, _LIMIT)
        except FileNotFoundError:
            return OwnKeys({}, {})
        except OSError as error:
            return OwnKeys({}, {}, (Fault("", f"cannot be read: {error.strerror}"),))
        except TextFault as fault:
            return OwnKeys({}, {}, (Fault("", str(fault)),))
        from vmhost.ops.yamlfile import read_tree

        return _keys_of(read_tree(text))


def own_preferences() -> Preferences:
    """Return the files of the person who runs this. :raises UsageError: a variable that moves them makes no sense."""
    from vmhost.drivers.layout import layout_for

    mine = layout_for(privileged=False)
    return Preferences(mine.config / KEYS_FILE, mine.state / VIEW_FILE)


def _keys_of(tree: Tree) -> OwnKeys:
    faults = list(tree.faults)
    data: Any = tree.data if tree.readable else None
    if data is not None and not isinstance(data, dict):
        faults.append(Fault("", "a file of keys is a mapping, as guests.start: U", 1))
        data = None
    keys: dict[str, tuple[str, ...]] = {}
    lines: dict[str, int] = {}
    for name, value in (data or {}).items():
        line = tree.line(str(name)) or tree.line("")
        words = value if isinstance(value, list) else [value]
        if not words or not all(isinstance(word, str | int) and not isinstance(word, bool) for word in words):
            faults.append(Fault(str(name), "a key is expected, or a list of keys, each in quotes", line))
            continue
        keys[str(name)], lines[str(name)] = tuple(str(word) for word in words), line
    return OwnKeys(keys, lines, tuple(faults))
