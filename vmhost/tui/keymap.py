"""Every key of every screen, once: bindings, footer, help and the manual's table are made from this.

No single letter changes anything by itself: what changes the host opens the plan screen first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from textual.binding import Binding


@dataclass(frozen=True, slots=True)
class Key:
    """A key: where it works, what it does (the action's name), and in words. ``foot``: the footer shows it."""

    where: str
    keys: str
    action: str
    words: str
    foot: str = ""

    @property
    def name(self) -> str:
        """Return what it is called in a file of own keys (``guests.start``); empty: it is always the same."""
        if not self.action or self.action == "back" or (self.where, self.action) == ("form", "app.leave"):
            return ""
        inner = self.action.partition("('")[2].removesuffix("')")
        return f"{self.places[0]}.{inner or self.action.removeprefix('app.').replace('_', '-')}"

    @property
    def places(self) -> tuple[str, ...]:
        """Return the screens that it works on."""
        return tuple(self.where.split(", "))


EVERYWHERE: Final = "everywhere"
LISTS: Final = "lists and texts"

KEYS: Final = (
    Key(EVERYWHERE, "question_mark", "app.help", "this help", "help"),
    Key(EVERYWHERE, "colon", "app.command", "a command: guests host net services backup jobs new theme q"),
    Key(EVERYWHERE, "ctrl+p", "app.command_palette", "the palette: every command by name"),
    Key(EVERYWHERE, "t", "app.next_theme", "the next theme: dark, light, contrast, ansi"),
    Key(EVERYWHERE, "escape", "back", "back; out of a filter: show all"),
    Key(EVERYWHERE, "q", "app.leave", "quit", "quit"),
    Key(LISTS, "up,k / down,j", "", "one up, one down"),
    Key(LISTS, "pageup / pagedown", "", "a screen up, a screen down"),
    Key(LISTS, "home,g / end,G", "", "the first, the last"),
    Key(LISTS, "< / >", "", "in a text: to the left, to the right"),
    Key("guests", "enter,d", "open_guest", "open the guest"),
    Key("guests", "y", "guest_tab('xml')", "its XML"),
    Key("guests", "l", "guest_tab('console')", "its console log"),
    Key("guests", "slash", "filter", "filter: words, !word, label=KEY=VALUE", "filter"),
    Key("guests", "o", "next_sort", "sort by the next column", "sort"),
    Key("guests", "O", "turn_sort", "sort the other way round"),
    Key("guests", "space", "mark", "mark: actions take all that are marked", "mark"),
    Key("guests", "asterisk", "mark_all", "mark all that are shown, or none"),
    Key("guests", "n", "new_guest", "plan a new guest", "new"),
    Key("guests", "a", "apply_site", "plan a site file"),
    Key("guests", "C", "columns", "choose the columns"),
    Key("columns", "space", "show_or_hide", "show the column, or not", "show or not"),
    Key("columns", "K", "shift_left", "one place to the left", "to the left"),
    Key("columns", "J", "shift_right", "one place to the right", "to the right"),
    Key("columns", "0", "usual", "the usual columns", "the usual"),
    Key("guest", "left,h / right", "", "the tab before, the tab after"),
    Key("guest", "0 ... 9", "", "a tab by its number; 0 is the tenth"),
    Key("guest", "y", "tab('xml')", "its XML"),
    Key("guest", "l", "tab('console')", "its console log"),
    Key("guest", "r", "read", "read the tab again, over SSH if need be", "read again"),
    Key("guests, guest", "u", "power('start')", "plan to start", "start"),
    Key("guests, guest", "S", "power('stop')", "plan to shut down", "shut down"),
    Key("guests, guest", "R", "power('restart')", "plan to restart, one after another"),
    Key("guests, guest", "D", "power('power-off')", "plan to power off"),
    Key("guests, guest", "e", "resize", "plan other vCPUs and memory", "resize"),
    Key("guests, guest", "P", "pin", "plan other pCPUs"),
    Key("guests, guest", "ctrl+d", "delete", "plan to delete"),
    Key("guests, guest", "c", "console", "the console, on this terminal; ctrl+] ends", "console"),
    Key("guests, guest", "s", "ssh", "ssh with the pinned host key, on this terminal", "ssh"),
    Key("host", "r", "examine", "examine and measure the host again", "examine again"),
    Key("network", "enter,d", "open_port", "open the guest of the port"),
    Key("network", "a", "apply_site", "plan the network of a site file", "apply a site"),
    Key("network", "y", "confirm", "plan that the change that waits stays", "confirm"),
    Key("network", "r", "examine", "examine the network again", "examine again"),
    Key("services", "enter,d", "open_guest", "open the guest"),
    Key("services", "u", "act('start')", "plan to start", "start"),
    Key("services", "S", "act('stop')", "plan to stop", "stop"),
    Key("services", "R", "act('restart')", "plan to restart, one after another", "restart"),
    Key("services", "l", "logs", "its log, merged over its guests", "log"),
    Key("services", "p", "check", "look by its probes now", "probe"),
    Key("services", "a", "deploy", "plan to deploy a site file's services", "deploy"),
    Key("services", "V", "roll", "plan a rolling change, canary first", "roll"),
    Key("services", "B", "roll_back", "plan to take the last roll back"),
    Key("services", "ctrl+d", "delete", "plan to take it out of the guest"),
    Key("services", "space", "mark", "mark: start, stop, restart and probe take all that are marked", "mark"),
    Key("services", "asterisk", "mark_all", "mark all, or none"),
    Key("services", "o", "next_order", "order by health, service, guest", "order"),
    Key("services", "r", "look", "ask the guests again", "ask again"),
    Key("log", "w", "copy", "copy the command that does the same", "copy command"),
    Key("log", "escape", "back", "back; the guests are not read any more", "back"),
    Key("protection", "enter,d", "open_guest", "open the guest"),
    Key("protection", "tab", "", "the snapshots and points of the guest under the cursor, and back"),
    Key("protection, guest", "b", "back_up", "plan a point now", "back up"),
    Key("protection, guest", "N", "snapshot", "plan a snapshot", "snapshot"),
    Key("protection, guest", "v", "verify", "read back the point under the cursor, or all of the guest", "verify"),
    Key("protection, guest", "B", "drill", "boot that point where nobody hears it, or the newest", "drill"),
    Key("protection, guest", "i", "restore", "plan to restore in place: that point, or the latest", "restore"),
    Key("protection, guest", "n", "restore_as", "plan a new guest of that point, or of the latest", "as new"),
    Key("protection, guest", "o", "keep", "plan to keep what a restore brought"),
    Key("protection, guest", "p", "prune", "plan which points go", "prune"),
    Key("protection, guest", "z", "revert", "plan to go back to the snapshot under the cursor", "revert"),
    Key("protection, guest", "X", "drop_snapshot", "plan to delete the snapshot under the cursor"),
    Key("protection", "r", "read", "read points and snapshots again", "read again"),
    Key("jobs", "enter,l", "open_job", "its log"),
    Key("jobs", "x", "cancel_job", "ask it to end: it undoes what it did", "cancel"),
    Key("plan", "y", "apply", "yes: apply this plan", "yes, apply"),
    Key("plan", "escape", "back", "no, back; while it runs: end and undo", "no, back"),
    Key("plan", "w", "copy", "copy the command that does the same", "copy command"),
    Key("plan", "r", "again", "plan again", "plan again"),
    Key("plan", "v", "swap", "the step's XML, or the log", "XML / log"),
    Key("plan", "p,x,b", "", "what is permitted besides, as the screen says"),
    Key("work", "y", "begin", "yes: begin", "yes, begin"),
    Key("work", "x", "end", "ask it to end", "end it"),
    Key("work", "escape", "back", "back; what was begun goes on by itself", "back"),
    Key("work", "w", "copy", "copy the command that does the same", "copy command"),
    Key("work", "r", "again", "look again at what would be done"),
    Key("form", "tab / shift+tab", "", "the next field, the one before"),
    Key("form", "ctrl+s", "submit", "plan it", "plan it"),
    Key("form", "escape", "back", "back, nothing is done", "back"),
    Key("form", "ctrl+c", "app.leave", "quit", "quit"),
)


Own = Mapping[str, str]
"""Keys of one's own: by the name of what they do, written as in :data:`KEYS`."""

NO_OWN: Final[Own] = {}


def bindings(*places: str) -> list[Binding]:
    """Return the bindings of a screen; ``places`` as in :data:`KEYS`."""
    return [
        Binding(
            key.keys,
            key.action,
            key.foot or key.words,
            show=bool(key.foot),
            key_display=_display(key.keys),
            id=key.name or None,
        )
        for key in KEYS
        if key.action and _is_of(key, places)
    ]


def feet(places: tuple[str, ...], own: Own = NO_OWN) -> list[Key]:
    """Return the keys that the foot of a screen shows."""
    return [as_own(key, own) for key in KEYS if key.foot and _is_of(key, places)]


def help_of(place: str, own: Own = NO_OWN) -> Iterator[tuple[str, str, str]]:
    """Yield the section, the key and the words of everything that works on a screen, its own keys first."""
    mine = [key for key in KEYS if _is_of(key, (place,))]
    for key in (*mine, *(key for key in KEYS if key.where in (LISTS, EVERYWHERE))):
        yield key.where, shown(as_own(key, own).keys), key.words


def as_own(key: Key, own: Own) -> Key:
    """Return a key with the keys that the person chose for it."""
    return replace(key, keys=own[key.name]) if key.name in own else key


def shown(keys: str) -> str:
    """Return keys as people write them."""
    words = (" ".join(_NAMES.get(part, part) for part in group.split(",")) for group in keys.split(" / "))
    return " / ".join(words)


def _is_of(key: Key, places: tuple[str, ...]) -> bool:
    return any(place in key.places for place in places)


def _display(keys: str) -> str:
    return shown(keys.partition(",")[0])


_NAMES: Final = {
    "question_mark": "?",
    "colon": ":",
    "slash": "/",
    "asterisk": "*",
    "escape": "esc",
    "less_than_sign": "<",
    "greater_than_sign": ">",
}
