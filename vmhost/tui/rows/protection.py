"""How guests are protected, as rows against their own objectives, and one of them in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from math import inf
from typing import TYPE_CHECKING, Final

from vmhost.tui.rows.cells import Cell, Column, Line, Signs, Tone, cell, lasting, span

if TYPE_CHECKING:
    from vmhost.model.objectives import Objectives
    from vmhost.ops.protectionview import Guarded

COLUMNS: Final = (
    Column("name", "GUEST", 14, grows=2, widest=40),
    Column("state", "STATE", 13),
    Column("age", "POINT", 8, rank=1, right=True),
    Column("verified", "VERIFIED", 8, rank=3, right=True),
    Column("drilled", "DRILLED", 8, rank=4, right=True),
    Column("rto", "RTO", 7, rank=8, right=True),
    Column("next", "DUE", 8, rank=5),
    Column("kind", "KIND", 11, rank=9),
    Column("level", "LEVEL", 11, rank=7),
    Column("points", "POINTS", 6, rank=10, right=True),
    Column("why", "WHY", 20, rank=2, grows=1, widest=80),
)


def protection_cells(guest: Guarded, now: float, columns: Sequence[Column], signs: Signs) -> tuple[Cell, ...]:
    """Return the cells of one guest; what misses an objective stands beside it, as ``27h/26h``."""
    row, wants = guest.protection, guest.objectives
    cells = {
        "name": cell(row.name),
        "state": _state(guest, signs),
        "age": _against(row.age if row.age >= 0 else None, wants.rpo if wants else None, "none"),
        "verified": _against(_since(row.verified, now), wants.verified if wants else None, "never"),
        "drilled": _against(_since(row.drilled, now), wants.drill if wants else None, "never"),
        "rto": _took(wants),
        "next": _next(wants),
        "kind": Cell(row.kind or "-"),
        "level": Cell(row.level or "-"),
        "points": Cell(str(row.points)),
        "why": cell(_why(guest), Tone.DIM),
    }
    return tuple(cells[column.id] for column in columns)


def _state(guest: Guarded, signs: Signs) -> Cell:
    if guest.objectives is None:
        return Cell(f"{signs.off} gone" if guest.gone else f"{signs.off} not ours", Tone.DIM)
    if guest.protection.frozen:
        return Cell(f"{signs.warning} FROZEN", Tone.BAD)
    if guest.protection.problem:
        return Cell(f"{signs.warning} unprotected", Tone.BAD)
    return Cell(f"{signs.mark} protected", Tone.GOOD)


def _why(guest: Guarded) -> str:
    if guest.protection.problem or not guest.unread:
        left = "no guest any more: n makes one of a point" if guest.gone else "vmhost's no more: its points are left"
        return guest.protection.problem if guest.objectives else left
    return f"not understood: {'; '.join(map(str, guest.unread))}"


def _against(age: float | None, limit: float | None, none: str) -> Cell:
    """Return an age beside the objective for it, if there is one."""
    text = none if age is None else lasting(age)
    if limit is None:
        return Cell(text, Tone.PLAIN if age is not None else Tone.DIM)
    return Cell(f"{text}/{lasting(limit)}", Tone.BAD if age is None or age > limit else Tone.GOOD)


def _took(wants: Objectives | None) -> Cell:
    if wants is None or wants.took is None:
        return Cell("-" if wants is None or wants.rto is None else f"-/{span(wants.rto)}", Tone.DIM)
    if wants.rto is None:
        return Cell(span(wants.took))
    return Cell(f"{span(wants.took)}/{span(wants.rto)}", Tone.BAD if wants.took > wants.rto else Tone.GOOD)


def _since(time: str, now: float) -> float | None:
    try:
        return max(0.0, now - datetime.fromisoformat(time).timestamp())
    except ValueError:  # never, or no time at all
        return None


def _next(wants: Objectives | None) -> Cell:
    if wants is None:
        return Cell("-", Tone.DIM)
    if wants.next_point is None:
        return Cell("each run")
    return Cell(_when(wants.next_point), Tone.PLAIN if 0 < wants.next_point < inf else Tone.WARN)


def protection_lines(guest: Guarded | None, signs: Signs) -> list[Line]:
    """Return a guest in lines: how it stands, what comes next for it, and what of it cannot be understood."""
    if guest is None:
        return [Line("nothing is known of its protection: only guests of vmhost are protected", Tone.DIM)]
    row, wants = guest.protection, guest.objectives
    unread = [Line(f"{signs.warning} not understood: {damage}", Tone.BAD) for damage in guest.unread]
    if wants is None:
        text = "is gone; what is left of it" if guest.gone else "is not vmhost's any more; what it has"
        return [Line(f"{row.name} ({guest.uuid}) {text} are {row.points} points", Tone.DIM), *unread]
    state = Line(f"{signs.mark} {row.name} is protected", Tone.GOOD)
    if row.problem:
        state = Line(f"{signs.warning} {row.name}: {row.problem}{'' if row.points else ': b plans one'}", Tone.BAD)
    return [state, Line("; ".join(_outlook(wants)), Tone.DIM), *unread]


def _outlook(wants: Objectives) -> list[str]:
    found = [f"at most {lasting(wants.rpo)} may be lost"]
    found += [f"verified every {lasting(wants.verified)}"] if wants.verified else []
    found += [f"drilled every {lasting(wants.drill)}"] if wants.drill else []
    found += [f"back within {span(wants.rto)}"] if wants.rto else []
    found += [f"its last drill took {span(wants.took)}"] if wants.took is not None else []
    if wants.next_point is None:
        found.append("a point at each night's work")
    else:
        found.append(f"a point due {_when(wants.next_point)}")
    found += [f"a drill due {_when(wants.next_drill)}"] if wants.next_drill is not None else []
    return found


def _when(seconds: float) -> str:
    return "now" if not seconds else f"in {lasting(seconds)}" if seconds < inf else "never"
