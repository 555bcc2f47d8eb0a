"""Which of many points is meant, and which are worth something.

The points that one host took of a guest are counted, since clocks jump; those of several hosts, or of several guests
that had one name, have no order that anybody can rely on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal
from uuid import UUID

from vmhost.model.errors import NotFound, Refused
from vmhost.model.points import Point, beneath


def find_point(points: Sequence[Point], wanted: str, name: str, *, host: str, guest: str = "") -> Point:
    """Return the point that a person means: ``latest``, its id, or the beginning of its id or time.

    :param host: ours, whose points come before those of other hosts. :param guest: the UUID of the guest that has this
        name now, whose points come before those of former ones.
    :raises NotFound: there is none, or more than one that begins so; :raises Refused: nobody can say which is latest.
    """
    if not points:
        raise NotFound("there is no point of this guest", subject=name, hint=f"vmhost backup run {name}")
    its = [point for point in points if point.ref.guest == guest] or list(points)
    if wanted in ("", "latest"):
        return _latest(its, name, host)
    meant = [point for point in points if point.id.startswith(wanted) or point.taken.startswith(wanted)]
    ours = [point for point in meant if point in its]
    found = [point for point in ours if point.ref.host == host] or ours or meant
    if len(found) != 1:
        text = "there is no such point" if not found else f"{len(found)} points begin with {wanted}"
        raise NotFound(text, subject=f"{name} {wanted}", hint=f"vmhost backup list {name}")
    return found[0]


def guest_called(name: str, points: Iterable[Point], living: str) -> str:
    """Return the UUID of the guest that a name or UUID means, which has points: the living one, whatever its points
    call it, and else the only one of those that are gone.

    :param living: the UUID of the guest that is here by this name or UUID, or empty.
    :raises NotFound: it has no point; :raises Refused: several guests had this name.
    """
    if living:
        found = {point.ref.guest for point in points if point.ref.guest == living}
    else:
        found = {point.ref.guest for point in points if name in (point.name, point.ref.guest)}
    if not found:
        raise NotFound("there is no point of this guest", subject=name, hint="vmhost backup list")
    return _only(found, name)


Pick = Literal["newest", "oldest", "random"]


def pick_point(points: Sequence[Point], pick: Pick, name: str, *, host: str, chance: str) -> Point:
    """Return a whole point to be drilled; of several hosts, ours come first.

    :param points: of one guest. :param chance: a UUID that was drawn, by which the random one follows.
    :raises NotFound: it has no whole point.
    """
    found = whole(points)
    last = newest(found, host)
    if last is None:
        text = "it has no whole point" if points else "there is no point of this guest"
        raise NotFound(text, subject=name, hint=f"vmhost backup run {name}")
    its = sorted((one for one in found if one.ref.host == last.ref.host), key=lambda one: (one.generation, one.taken))
    number = {"newest": -1, "oldest": 0, "random": UUID(chance).int % len(its)}[pick]
    return its[number]


def newest(points: Iterable[Point], host: str) -> Point | None:
    """Return a guest's newest point, of this host if it has any, else the one of the latest time."""
    last = _last_of_hosts(points)
    return last.get(host) or max(last.values(), key=lambda point: point.taken, default=None)


def whole(points: Iterable[Point]) -> list[Point]:
    """Return those points that, as far as is noted, are whole with all that they lie on."""
    known = {point.ref: point for point in points}
    return [point for point in known.values() if _rests_well((point, *beneath(point, known)))]


def _rests_well(links: Sequence[Point]) -> bool:
    return not links[-1].parent and not any(point.damaged for point in links)


def _only(guests: Iterable[str], name: str) -> str:
    """Return the only guest. :raises Refused: there are several."""
    first, *others = sorted(guests)
    if others:
        text = f"{1 + len(others)} guests had this name; say which one by its UUID: {', '.join((first, *others))}"
        raise Refused(text, subject=name, hint=f"vmhost backup list {first}")
    return first


def _latest(points: Sequence[Point], name: str, host: str) -> Point:
    """:raises Refused: they are of several guests, or of several hosts of which ours has not the latest."""
    _only({point.ref.guest for point in points}, name)
    last = _last_of_hosts(points)
    chosen = last.get(host)
    rivals = [point for place, point in last.items() if place != host]
    if chosen is None and len(rivals) == 1:
        return rivals[0]
    if chosen is None or any(point.taken > chosen.taken for point in rivals):
        told = ", ".join(f"{point.id} of {point.host_name or place}" for place, point in sorted(last.items()))
        raise Refused(f"several hosts took points of it; say which one: {told}", subject=name, hint="add --point POINT")
    return chosen


def _last_of_hosts(points: Iterable[Point]) -> dict[str, Point]:
    last: dict[str, Point] = {}
    for point in sorted(points, key=lambda point: (point.generation, point.taken)):
        last[point.ref.host] = point
    return last
