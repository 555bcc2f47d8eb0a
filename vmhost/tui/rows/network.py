"""The host's network: bridges and their ports as rows, and who is in which VLAN as a matrix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from vmhost.model.vlans import format_vids, ranges
from vmhost.ops.networkview import BridgeRow, PortRow
from vmhost.tui.rows.cells import Cell, Column, Line, Signs, Tone, cell

if TYPE_CHECKING:
    from vmhost.model.network import PendingChange
    from vmhost.ops.netstate import NetState

COLUMNS: Final = (
    Column("name", "BRIDGE / PORT", 17),
    Column("role", "ROLE", 10, rank=3),
    Column("state", "STATE", 6, rank=2),
    Column("pvid", "PVID", 4, rank=1, right=True),
    Column("tagged", "TAGGED", 14, rank=4, grows=2, widest=40),
    Column("guest", "GUEST", 16, grows=1, widest=40),
    Column("mtu", "MTU", 5, rank=6, right=True),
    Column("site", "SITE", 10, rank=5),
)
Row = tuple[BridgeRow, PortRow | None]
"""A bridge itself, or one of its ports."""

_PORT: Final = 16
_GUEST: Final = 16
_WIDEST: Final = 9
_UNTAGGED: Final = "U"
_TAGGED: Final = "T"


def network_rows(bridges: Sequence[BridgeRow]) -> dict[str, Row]:
    """Return the rows of all bridges by a key that stays: each bridge, then its ports."""
    found: dict[str, Row] = {}
    for bridge in bridges:
        found[bridge.name] = (bridge, None)
        found |= {f"{bridge.name}/{port.name}": (bridge, port) for port in bridge.ports}
    return found


def network_cells(row: Row, columns: Sequence[Column], signs: Signs) -> tuple[Cell, ...]:
    """Return the cells of one row."""
    bridge, port = row
    cells = _bridge_cells(bridge, signs) if port is None else _port_cells(bridge, port, signs)
    return tuple(cells[column.id] for column in columns)


def _bridge_cells(bridge: BridgeRow, signs: Signs) -> Mapping[str, Cell]:
    return {
        "name": cell(bridge.name, Tone.LIVELY),
        "role": Cell("vlan-aware" if bridge.vlan_aware else "plain"),
        "state": _state(bridge.up, signs),
        "pvid": Cell("-", Tone.DIM),
        "tagged": Cell(format_vids(bridge.vids) or "-", Tone.DIM),
        "guest": cell(", ".join(bridge.addresses) or "-", Tone.DIM),
        "mtu": Cell(str(bridge.mtu)),
        "site": cell(bridge.site or "foreign", Tone.PLAIN if bridge.site else Tone.DIM),
    }


def _port_cells(bridge: BridgeRow, port: PortRow, signs: Signs) -> Mapping[str, Cell]:
    nowhere = bridge.vlan_aware and not (port.untagged or port.tagged)
    return {
        "name": cell(f"  {port.name}"),
        "role": Cell(port.role, Tone.WARN if port.role == "foreign" and bridge.site else Tone.PLAIN),
        "state": _state(port.up, signs),
        "pvid": Cell("none", Tone.WARN) if nowhere else Cell(str(port.pvid or "-")),
        "tagged": Cell(format_vids(port.tagged) or "-"),
        "guest": cell(f"{port.guest} {port.nic}".strip() or "-"),
        "mtu": Cell(str(port.mtu), Tone.PLAIN if port.mtu == bridge.mtu else Tone.WARN),
        "site": Cell(),
    }


def _state(up: bool, signs: Signs) -> Cell:
    return Cell(f"{signs.running} up", Tone.GOOD) if up else Cell(f"{signs.off} down", Tone.WARN)


def vlan_lines(bridges: Sequence[BridgeRow], width: int) -> list[Line]:
    """Return, for each bridge that keeps VLANs apart, who is in which: U untagged, T tagged.

    VLANs that nobody tells apart share a column; columns that have no room in ``width`` are counted, not shown.
    """
    found = [line for bridge in bridges if bridge.vlan_aware for line in _matrix(bridge, width)]
    return found or [Line("no bridge of this host keeps VLANs apart", Tone.DIM)]


def _matrix(bridge: BridgeRow, width: int) -> Iterator[Line]:
    groups = vlan_groups(bridge.ports)
    room = max(1, (width - _PORT - _GUEST - 2) // (_WIDEST + 1))
    shown, more = groups[:room], len(groups) - room
    head = "".join(f" {format_vids(group):>{_WIDEST}.{_WIDEST}}" for group in shown)
    rest = f"  and {more} more" if more > 0 else ""
    yield Line(f"{bridge.name[: _PORT - 1]:<{_PORT}} {'':<{_GUEST}}{head}{rest}", Tone.LIVELY)
    for port in bridge.ports:
        marks = "".join(f" {_mark(port, group[0]):>{_WIDEST}}" for group in shown)
        yield Line(f"{port.name[: _PORT - 1]:<{_PORT}} {port.guest[: _GUEST - 1]:<{_GUEST}}{marks}")
    if not bridge.ports:
        yield Line("it has no ports", Tone.DIM)


def _mark(port: PortRow, vid: int) -> str:
    return _UNTAGGED if vid in port.untagged else _TAGGED if vid in port.tagged else "."


def vlan_groups(ports: Sequence[PortRow]) -> list[tuple[int, ...]]:
    """Return the VLANs of some ports in order, neighbours with the same ports in them together."""
    members: dict[int, tuple[tuple[int, bool], ...]] = {}
    for number, port in enumerate(ports):
        for vids, tagged in ((port.untagged, False), (port.tagged, True)):
            for vid in vids:
                members[vid] = (*members.get(vid, ()), (number, tagged))
    groups: list[tuple[int, ...]] = []
    for first, last in ranges(members):
        start = first
        for vid in range(first, last + 1):
            if vid == last or members[vid + 1] != members[start]:
                groups.append(tuple(range(start, vid + 1)))
                start = vid + 1
    return groups


def state_lines(state: NetState, file: str, signs: Signs) -> list[Line]:
    """Return who has which VLAN ids and addresses, and what differs; ``file`` is what it was held against."""
    return [*_vlans(state), Line(""), *_addresses(state), Line(""), *_drift(state, file, signs)]


def _vlans(state: NetState) -> Iterator[Line]:
    yield Line("VLAN IDS", Tone.LIVELY)
    for row in state.vlans:
        whose = " ".join(filter(None, (row.owner, f"of {row.site}" if row.site else "", row.range)))
        who = ", ".join((*row.guests, *row.ports)) or (f"until {row.until}" if row.until else "-")
        tone = Tone.DIM if row.state in ("resting", "foreign") else Tone.PLAIN
        yield Line(f"{row.vid:>6}  {row.state:<8} {whose or '-':<28} {who}", tone)
    if not state.vlans:
        yield Line("nobody has any", Tone.DIM)


def _addresses(state: NetState) -> Iterator[Line]:
    yield Line("ADDRESSES", Tone.LIVELY)
    for row in state.addresses:
        until = f"  until {row.until}" if row.until else ""
        tone = Tone.DIM if row.state == "resting" else Tone.PLAIN
        yield Line(f"  {row.address:<20} {row.state:<8} {row.owner} of {row.site}{until}", tone)
    if not state.addresses:
        yield Line("nobody has any", Tone.DIM)


def _drift(state: NetState, file: str, signs: Signs) -> Iterator[Line]:
    yield Line(f"DIFFERENCES FROM {file or 'WHAT WAS APPLIED TO THE GUESTS'}", Tone.LIVELY)
    yield from (Line(f"{signs.warning} {text}", Tone.WARN) for text in state.differences)
    if not state.differences:
        yield Line("there are none", Tone.GOOD)
    if not file:
        yield Line("a holds the network against a site file, and applies it", Tone.DIM)


def waiting_line(change: PendingChange | None, signs: Signs) -> Line | None:
    """Return what is to be said of a network change that waits, or was taken back, and how the person answers."""
    if change is None:
        return None
    site = change.site
    match change.state:
        case "waiting":
            text = f"the network of site {site} is taken back in {change.left:.0f} s: look around, then y confirms"
            return Line(f"{signs.warning} {text}", Tone.WARN)
        case "restored":
            failed = "".join(f"; not put back: {text}" for text in change.failures)
            text = f"the last network change of site {site} was taken back: nobody confirmed it in time{failed}"
            return Line(f"{signs.crashed} {text}", Tone.BAD)
        case state:
            return Line(f"{signs.closing} the network change of site {site}: {state}", Tone.WARN)
