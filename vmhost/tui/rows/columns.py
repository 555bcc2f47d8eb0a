"""The columns of the list of guests as a person chooses them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from vmhost.tui.rows.cells import Cell, Column, Signs, Tone
from vmhost.tui.rows.guests import COLUMNS

CHOICES: Final = (
    Column("shown", "SHOWN", 5),
    Column("title", "COLUMN", 9),
    Column("words", "WHAT IT SAYS", 30, grows=1, widest=60),
)
ALWAYS: Final = "name"
"""Without it no row says whose it is."""

WORDS: Final[Mapping[str, str]] = {
    "name": "its name; always shown",
    "state": "whether it runs",
    "vcpus": "how many vCPUs it has",
    "cpu": "how busy its vCPUs are",
    "cpu-spark": "how busy they were, as bars",
    "memory": "memory used and given",
    "memory-max": "memory that it may be given at most",
    "disk": "bytes a second from and to its disks",
    "disk-spark": "the same, as bars",
    "net": "bytes a second from and to the network",
    "net-spark": "the same, as bars",
    "address": "the address that it is reached at",
    "vlan": "the VLANs of its ports",
    "services": "its services that the watch found healthy, of all",
    "protection": "how old its newest point is that was found whole",
    "site": "the site that it belongs to",
    "flags": "what is special: drift, pending, saved, foreign, protected",
}
_ALL: Final = {column.id: column for column in COLUMNS}
USUAL: Final = tuple(_ALL)


def chosen(names: Sequence[str]) -> tuple[Column, ...]:
    """Return the columns of these names in their order; unknown names are left out, none means the usual ones."""
    known = tuple(dict.fromkeys(name for name in names if name in _ALL))
    if not known:
        return COLUMNS
    if ALWAYS not in known:
        known = (ALWAYS, *known)
    return tuple(_ALL[name] for name in known)


def listed(names: Sequence[str]) -> tuple[str, ...]:
    """Return all columns: those that are shown in their order, then the others in the usual one."""
    return (*names, *(name for name in USUAL if name not in names))


def toggled(order: Sequence[str], shown: frozenset[str], name: str) -> frozenset[str]:
    """Return which are shown after one was chosen, or no longer."""
    return frozenset(order) & shown if name == ALWAYS else shown ^ {name}


def moved(order: Sequence[str], name: str, by: int) -> tuple[str, ...]:
    """Return the order after a column moved."""
    rest = [item for item in order if item != name]
    rest.insert(max(0, min(len(rest), order.index(name) + by)), name)
    return tuple(rest)


def choice_cells(name: str, shown: frozenset[str], columns: Sequence[Column], signs: Signs) -> tuple[Cell, ...]:
    """Return the cells of one choice."""
    here = name in shown
    cells = {
        "shown": Cell(f"  {signs.mark}" if here else "  -", Tone.GOOD if here else Tone.DIM),
        "title": Cell(_ALL[name].title, Tone.PLAIN if here else Tone.DIM),
        "words": Cell(WORDS[name], Tone.PLAIN if here else Tone.DIM),
    }
    return tuple(cells[column.id] for column in columns)
