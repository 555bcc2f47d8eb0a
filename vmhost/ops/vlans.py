"""VLAN ids of this host: who has which, and taking and giving back one by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vmhost.engine.context import Context
from vmhost.engine.observe import observe_domains
from vmhost.engine.record import Record
from vmhost.engine.recover import recover
from vmhost.engine.transaction import Transaction
from vmhost.model.errors import NotFound, Refused, UsageError
from vmhost.model.plan import Plan, Planned
from vmhost.model.reservations import Reservation, iso
from vmhost.model.units import check_name, parse_vid, parse_vid_range, shown
from vmhost.ops.build import user_name
from vmhost.ops.permission import check_may_change
from vmhost.plan.request import raise_all
from vmhost.plan.reserve import (
    Usage,
    exhausted,
    had_before,
    in_range,
    in_words,
    lowest_free,
    release,
    reserve,
    settle_vlans,
    usage,
)

if TYPE_CHECKING:
    from vmhost.model.spec import Site
    from vmhost.ops.host import Host
    from vmhost.ports import Ports

Make = Callable[[Usage, str], list[Planned]]
_LIST = "vmhost net vlan list"


@dataclass(frozen=True, slots=True)
class VlanRow:
    """One VLAN id that is not free.

    ``used``: reserved, and guests are in it; ``idle``: reserved, and nobody is; ``resting``: released a short while
    ago; ``fixed``: guests are in it, since their site names it; ``foreign``: a port carries it that is not ours.
    """

    vid: int
    state: Literal["used", "idle", "resting", "fixed", "foreign"]
    owner: str = ""
    site: str = ""
    range: str = ""
    since: str = ""
    until: str = ""
    guests: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()


class Vlans:
    """The VLAN ids of one host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def list(self) -> tuple[VlanRow, ...]:
        """Return every id that is not free, by number; what others use on this host is among them."""
        ports = self._host.ports
        used = _look(ports, iso(ports.clock.now()))
        return tuple(_row(vid, used) for vid in sorted({*used.reserved, *used.guests, *used.ports}))

    def allocate(self, target: str, *, site: Site | None = None, owner: str = "") -> VlanRow:
        """Reserve the lowest free id, under the host's lock, and return it; what dies in between leaves nothing.

        :param target: a range (``1000-1999``), or a network of ``site`` with ``vlan: auto``; whoever has one already
            gets the same again.
        :param site: the site of the network; None: it has its id already.
        :param owner: who or what an id of a range is for; the user's name if it is empty, who may have several.
        :raises UsageError: this is no range and no such network; :raises NoCapacity: the range is used up;
            :raises NotFound: the network has no id, and no site says which range it is from.
        """
        if site is not None:
            return self._for_network(site, target)
        if not target[:1].isdigit():
            return self._known(target)
        try:
            first, last = parse_vid_range(target)
            name = check_name(owner) if owner else ""
        except ValueError as error:
            raise UsageError(str(error), subject=target, hint="vmhost net vlan allocate 1000-1999") from error
        return self._from_range(f"{first}-{last}", name)

    def release(self, vid: int) -> VlanRow:
        """Give an id up; it rests for a day before anybody else gets it.

        :raises NotFound: nobody has it; :raises Refused: guests are in it.
        """
        try:
            parse_vid(vid)
        except ValueError as error:
            raise UsageError(str(error), subject=str(vid), hint=_LIST) from error

        def make(used: Usage, now: str) -> list[Planned]:
            item = used.reserved.get(vid)
            if item is None or not item.held:
                raise NotFound(f"VLAN {vid} is not reserved", subject=str(vid), hint=_LIST)
            if vid in used.guests:
                text = f"VLAN {vid} is used by {', '.join(used.guests[vid])}"
                raise Refused(text, subject=in_words(item), hint=f"vmhost guest show {used.guests[vid][0]}")
            return [release((item,), now, f"{item.owner}: VLAN {vid} is given up")]

        return _row(vid, change(self._host.ports, f"release VLAN {vid}", make))

    def _from_range(self, pool: str, owner: str) -> VlanRow:
        chosen: list[int] = []

        def make(used: Usage, now: str) -> list[Planned]:
            mine = [vid for vid, item in used.reserved.items() if item.held and item.is_of("", owner)]
            kept = next((vid for vid in sorted(mine) if owner and in_range(vid, pool)), None)
            if kept is not None:
                chosen.append(kept)
                return []
            before = (vid for vid in had_before("", owner, used) if owner and in_range(vid, pool))
            vid = next(before, None) or lowest_free(pool, frozenset(), used)
            if vid is None:
                raise_all([exhausted(owner or user_name(), pool, frozenset(), used)])
                return []
            chosen.append(vid)
            item = Reservation("vlan", str(vid), owner or user_name(), pool=pool, since=now)
            return [reserve(item, used, f"{item.owner}: VLAN {vid} of {pool}")]

        used = change(self._host.ports, f"allocate VLAN of {pool}", make)
        return _row(chosen[0], used)

    def _for_network(self, site: Site, name: str) -> VlanRow:
        network = site.networks.get(name)
        if network is None or network.vlan != "auto":
            why = "there is no such network" if network is None else "this network has no vlan: auto"
            raise UsageError(f"{why} in site {site.name}", subject=name, hint=f"vmhost plan {site.path or 'SITE'}")
        chosen: list[int] = []

        def make(used: Usage, now: str) -> list[Planned]:
            settled = settle_vlans(site, used, now)
            raise_all([item for item in settled.refusals if item.subject == name])
            chosen.append(int(settled.site.networks[name].vlan or 0))
            return [item for item in settled.steps if item.subject == name]

        used = change(self._host.ports, f"allocate VLAN of {name}", make)
        return _row(chosen[0], used)

    def _known(self, name: str) -> VlanRow:
        found = [row for row in self.list() if row.owner == name and row.state != "resting"]
        if len(found) == 1:
            return found[0]
        text = "several sites have a network of this name" if found else "this network has no VLAN id yet"
        kind = UsageError if found else NotFound
        raise kind(f"{text}: name its site", subject=name, hint=f"vmhost net vlan allocate {name} --site FILE")


def _row(vid: int, used: Usage) -> VlanRow:
    item, guests, ports = used.reserved.get(vid), used.guests.get(vid, ()), used.ports.get(vid, ())
    if item is None:
        return VlanRow(vid, "fixed" if guests else "foreign", guests=guests, ports=ports)
    held: Literal["used", "idle"] = "used" if guests or ports else "idle"
    state = held if item.held else "resting"
    return VlanRow(vid, state, item.owner, item.site, item.pool, item.since, item.until, guests, ports)


def change(ports: Ports, operation: str, make: Make) -> Usage:
    """Look, plan and apply under the host's lock, so that whoever else does the same comes before or after; return who
    has what then.

    What an operation that died has left is settled first. The journal makes it all or nothing: who is killed before
    the end is undone by whoever comes next.
    """
    check_may_change(ports.hypervisor)
    context = Context(ports)
    with ports.locks.host(context.waiting(operation)):
        if ports.journals.any_open():
            recover(context)
        now = ports.clock.now()
        used = _look(ports, iso(now))
        steps = make(used, iso(now))
        if not steps:
            return used
        plan = Plan("", tuple(steps))
        record = Record(ports.journals.begin(f"{iso(now).replace(':', '')}-{ports.entropy.uuid()[:8]}"))
        try:
            record.begin(operation, plan, user=user_name(), time=now)
        except BaseException:
            record.close(done=True)
            raise
        transaction = Transaction(plan, context, record)
        transaction.run()
        transaction.finish()
        return _look(ports, iso(now))


def _look(ports: Ports, now: str) -> Usage:
    return usage(ports.reservations.read(), observe_domains(ports.hypervisor), ports.links.links(), now)


def vid_of(text: str) -> int:
    """Return the VLAN id that a person typed. :raises UsageError: it is none."""
    try:
        return parse_vid(int(text))
    except ValueError as error:
        why = str(error) if text.lstrip("-").isdecimal() else f"{shown(text)} is not a VLAN id: write a number"
        raise UsageError(why, subject=text, hint=_LIST) from error
