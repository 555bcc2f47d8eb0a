"""VLAN ids that vmhost chooses: what is taken and by whom, and which one a network with ``vlan: auto`` gets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from vmhost.model.netsteps import OURS
from vmhost.model.observed import ObservedDomain, ObservedLink
from vmhost.model.plan import Change, Planned
from vmhost.model.reservations import Reservation, in_force, released
from vmhost.model.spec import NetworkSpec, Site
from vmhost.model.steps import Release, Reserve, Unreserve
from vmhost.model.units import parse_vid_range
from vmhost.model.vlans import parse_vids
from vmhost.plan.request import Conflict, NoCapacity, Refusal

GUEST_PORTS: Final = frozenset({"tun", "veth", "macvtap"})
"""Kinds of links that somebody's machine is behind; what a bridge's way to the wire may carry says nothing."""

LOOK: Final = "vmhost net vlan list"


@dataclass(frozen=True, slots=True)
class Usage:
    """Who uses or holds which VLAN id: what is reserved, what the guests' metadata says, what the kernel's ports carry.

    ``guests`` maps ids to guests, ``networks`` networks of sites to the ids that their guests are in untagged,
    ``ports`` ids to ports of bridges that no guest of ours explains.
    """

    reserved: dict[int, Reservation]
    guests: dict[int, tuple[str, ...]]
    networks: dict[tuple[str, str], tuple[int, ...]]
    ports: dict[int, tuple[str, ...]]

    def holder(self, vid: int) -> str:
        """Return who has an id, in words, or an empty text."""
        item = self.reserved.get(vid)
        if item is not None and item.held:
            return f"reserved for {in_words(item)}"
        if vid in self.guests:
            return f"used by {', '.join(self.guests[vid])}"
        if vid in self.ports:
            return f"carried by {', '.join(self.ports[vid])}"
        return f"resting until {item.until} after {in_words(item)}" if item is not None else ""


@dataclass(frozen=True, slots=True)
class Settled:
    """A site with its VLAN ids chosen, the steps that write them down, and what speaks against it."""

    site: Site
    steps: tuple[Planned, ...] = ()
    refusals: tuple[Refusal, ...] = ()


@dataclass(slots=True)
class _Draft:
    networks: dict[str, NetworkSpec] = field(default_factory=dict)
    steps: list[Planned] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)


def in_words(item: Reservation) -> str:
    """Return whose a reservation is: ``network lab of site shop``, or the words of whoever made it by hand."""
    if item.kind == "vlan" and item.site:
        return f"network {item.owner} of site {item.site}"
    return f"{item.owner} of site {item.site}" if item.site else item.owner


def usage(
    reservations: Iterable[Reservation], domains: Iterable[ObservedDomain], links: Iterable[ObservedLink], now: str
) -> Usage:
    """Return who uses or holds which VLAN id of this host."""
    guests: dict[int, tuple[str, ...]] = {}
    networks: dict[tuple[str, str], tuple[int, ...]] = {}
    ours: set[str] = set()
    for domain in domains:
        for nic in domain.metadata.identity.nics if domain.metadata else ():
            ours.add(nic.tap)
            for vid in {nic.pvid, *_tagged(nic.tagged)} - {0}:
                guests[vid] = tuple(dict.fromkeys((*guests.get(vid, ()), domain.name)))
            if nic.pvid and domain.metadata:
                place = (domain.metadata.site, nic.network)
                networks[place] = tuple(dict.fromkeys((*networks.get(place, ()), nic.pvid)))
    ports: dict[int, tuple[str, ...]] = {}
    for link in links:
        if link.master and link.kind in GUEST_PORTS and not link.alias.startswith(OURS) and link.name not in ours:
            for vid in link.vlans.untagged | link.vlans.tagged:
                ports[vid] = (*ports.get(vid, ()), link.name)
    reserved = {int(item.value): item for item in in_force(reservations, now) if item.kind == "vlan"}
    return Usage(reserved, guests, networks, ports)


def settle_vlans(site: Site, used: Usage, now: str) -> Settled:
    """Return the site with an id for every network that leaves the choice to vmhost.

    A network keeps the id that its guests are in, whatever is written down: their metadata wins. Otherwise it keeps the
    one that is reserved for it, and a new one takes the lowest that is free.

    :param now: ISO 8601 in UTC, as metadata carries it.
    """
    draft = _Draft(dict(site.networks))
    fixed = {vid for network in site.networks.values() for vid in _fixed(network)}
    fixed |= {vid for guest in site.guests for nic in guest.nics for vid in parse_vids(nic.tagged or "")}
    draft.refusals += _taken_by_others(site, used)
    for name, network in site.networks.items():
        if network.vlan == "auto" and network.range:
            vid = _choose(site, name, network, used, fixed)
            if vid is None:
                draft.refusals.append(exhausted(name, network.range, _barred(network), used))
                continue
            fixed.add(vid)
            draft.networks[name] = network.model_copy(update={"vlan": vid})
            draft.steps += _written_down(site.name, name, vid, network.range, used, now)
    draft.steps += _given_up(site, used, now)
    return Settled(site.model_copy(update={"networks": draft.networks}), tuple(draft.steps), tuple(draft.refusals))


def lowest_free(pool: str, barred: frozenset[int], used: Usage) -> int | None:
    """Return the lowest id of a range that nobody has and that does not rest, or None."""
    first, last = parse_vid_range(pool)
    return next((vid for vid in range(first, last + 1) if vid not in barred and not used.holder(vid)), None)


def in_range(vid: int, pool: str) -> bool:
    """Whether an id lies in a range."""
    first, last = parse_vid_range(pool)
    return first <= vid <= last


def exhausted(subject: str, pool: str, barred: frozenset[int], used: Usage) -> Refusal:
    """Return why a range has no id to give."""
    first, last = parse_vid_range(pool)
    whole = range(first, last + 1)
    resting = sum(used.holder(vid).startswith("resting") for vid in whole)
    kept, rest = len(barred & set(whole)), f"{resting} rest{'s' if resting == 1 else ''} after a release"
    text = f"no VLAN of {pool} is free: of {len(whole)}, {kept} {'is' if kept == 1 else 'are'} kept free, {rest}"
    return Refusal(subject, text, LOOK, NoCapacity)


def had_before(site: str, owner: str, used: Usage) -> Iterator[int]:
    """Yield the ids that rest and were this one's, who may have them again: nobody is in them."""
    for vid, item in sorted(used.reserved.items()):
        if not item.held and item.is_of(site, owner) and vid not in used.guests and vid not in used.ports:
            yield vid


def reserve(item: Reservation, used: Usage, why: str) -> Planned:
    """Return the step that writes a reservation down; its undo brings back what rested there."""
    before = used.reserved.get(int(item.value))
    undo = Reserve((before,)) if before is not None else Unreserve((item,))
    return Planned(Reserve((item,)), undo, Change.LIVE, item.owner, why)


def release(items: tuple[Reservation, ...], now: str, why: str) -> Planned:
    """Return the step that gives reservations up."""
    gone = tuple(released(item, now) for item in items)
    return Planned(Release(gone), Reserve(items), Change.LIVE, items[0].owner, why)


def held_for_site(site: str, reservations: Iterable[Reservation]) -> tuple[Reservation, ...]:
    """Return the VLAN ids that are reserved for networks of a site."""
    return tuple(item for item in reservations if item.kind == "vlan" and item.held and item.site == site)


def _choose(site: Site, name: str, network: NetworkSpec, used: Usage, fixed: set[int]) -> int | None:
    first, last = parse_vid_range(network.range or "")
    barred = _barred(network) | fixed
    allowed = [vid for vid in _own(site.name, name, used) if first <= vid <= last and vid not in barred]
    return allowed[0] if allowed else lowest_free(network.range or "", barred, used)


def _own(site: str, network: str, used: Usage) -> Iterator[int]:
    """Yield the ids that a network has, the one to keep first."""
    mine = used.networks.get((site, network), ())
    noted = [vid for vid, item in used.reserved.items() if item.held and item.is_of(site, network)]
    yield from (vid for vid in noted if vid in mine)
    yield from (vid for vid in sorted(mine) if vid not in noted and not _anothers(vid, site, network, used))
    yield from (vid for vid in noted if vid not in mine)
    yield from had_before(site, network, used)


def _anothers(vid: int, site: str, network: str, used: Usage) -> bool:
    item = used.reserved.get(vid)
    return item is not None and item.held and not item.is_of(site, network)


def _written_down(site: str, name: str, vid: int, pool: str, used: Usage, now: str) -> list[Planned]:
    noted = [item for item in used.reserved.values() if item.held and item.is_of(site, name)]
    steps = [
        release((item,), now, f"{name}: VLAN {item.value} is given up") for item in noted if int(item.value) != vid
    ]
    if not any(int(item.value) == vid for item in noted):
        item = Reservation("vlan", str(vid), name, site, pool=pool, since=now)
        steps.append(reserve(item, used, f"{name}: VLAN {vid} of {pool}"))
    return steps


def _given_up(site: Site, used: Usage, now: str) -> list[Planned]:
    """Return the steps that give up what networks had that are gone or have a fixed id now, once no guest uses it."""
    auto = {name for name, network in site.networks.items() if network.vlan == "auto"}
    return [
        release((item,), now, f"{item.owner}: VLAN {item.value} is given up")
        for item in held_for_site(site.name, used.reserved.values())
        if item.owner not in auto and not used.networks.get((site.name, item.owner))
    ]


def _taken_by_others(site: Site, used: Usage) -> list[Refusal]:
    """Return why a site cannot write an id by hand: it was given to a network of another site."""
    found = []
    for name, network in site.networks.items():
        item = used.reserved.get(network.vlan) if isinstance(network.vlan, int) else None
        if item is not None and item.held and item.site not in ("", site.name):
            found.append(Refusal(name, f"VLAN {network.vlan} is reserved for {in_words(item)}", LOOK, Conflict))
    return found


def _barred(network: NetworkSpec) -> frozenset[int]:
    return parse_vids(network.reserved or "")


def _fixed(network: NetworkSpec) -> Iterator[int]:
    if isinstance(network.vlan, int):
        yield network.vlan


def _tagged(text: str) -> frozenset[int]:
    """Return the ids of a text of metadata; of one that a newer or broken vmhost wrote, none."""
    try:
        return parse_vids(text)
    except ValueError:
        return frozenset()
