"""Which point is meant where hosts, and guests of one name, each count their own; and who is protected."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vmhost.model.errors import NotFound, Refused
from vmhost.model.points import Point, PointRef
from vmhost.plan.choose import find_point, newest, whole
from vmhost.plan.protection import Measure, Ward, protection

NOW = 1_795_219_200.0  # 2026-11-21T00:00:00Z


def point(number: int, day: int, *, host: str = "here", guest: str = "new", parent: str = "") -> Point:
    taken = f"2026-11-{day:02d}T22:00:00Z"
    ref = PointRef("/backups", host, guest, f"202611{day:02d}T220000Z-{number:06d}")
    return Point(ref, number, taken, "full", "web", host_name=host.upper(), parent=parent)


def test_the_latest_of_one_host_is_the_one_that_it_counted_last() -> None:
    """Its clock went back in between."""
    points = [point(1, 19), point(3, 17), point(2, 20)]
    assert find_point(points, "latest", "web", host="here").generation == 3
    assert newest(points, "here") == points[1]
    assert find_point(points, "", "web", host="elsewhere").generation == 3, "one host only, though not this one"


def test_what_another_host_counted_says_nothing_about_ours() -> None:
    ours, theirs = point(3, 20), point(50, 12, host="there")
    assert find_point([theirs, ours], "latest", "web", host="here") == ours
    assert newest([theirs, ours], "here") == ours


@pytest.mark.parametrize(
    "points",
    [
        (point(3, 12), point(2, 20, host="there")),
        (point(3, 12, host="there"), point(2, 20, host="yonder")),
    ],
)
def test_nobody_can_say_which_of_several_hosts_has_the_latest(points: tuple[Point, ...]) -> None:
    with pytest.raises(Refused) as caught:
        find_point(points, "latest", "web", host="here")
    assert all(f"{one.id} of {one.host_name}" in str(caught.value) for one in points)
    assert find_point(points, "20261112", "web", host="here") == points[0]
    assert find_point(points, "2026-11-20", "web", host="here") == points[1]


def test_the_guest_that_has_the_name_now_comes_before_one_that_had_it() -> None:
    old, new = point(40, 12, guest="old"), point(1, 20)
    assert find_point([old, new], "latest", "web", host="here", guest="new") == new
    assert find_point([old, new], old.id, "web", host="here", guest="new") == old
    same = replace(old, ref=replace(new.ref, guest="old"), taken=new.taken)
    assert find_point([same, new], new.id, "web", host="here", guest="new") == new
    other = replace(new, ref=replace(new.ref, host="there"))
    assert find_point([other, new], new.id, "web", host="here", guest="new") == new


def test_of_two_guests_that_are_gone_the_person_says_which() -> None:
    points = [point(4, 12, guest="old"), point(1, 20)]
    with pytest.raises(Refused, match="2 guests had this name; say which one by its UUID: new, old"):
        find_point(points, "latest", "web", host="here")
    with pytest.raises(NotFound, match="2 points begin with 202611"):
        find_point(points, "202611", "web", host="here")
    with pytest.raises(NotFound, match="no such point"):
        find_point(points, "2025", "web", host="here", guest="new")
    with pytest.raises(NotFound, match="no point of this guest"):
        find_point([], "latest", "web", host="here")


def test_damaged_points_and_what_lies_on_them_protect_nobody() -> None:
    first, second = point(1, 18), point(2, 19)
    third = replace(point(3, 20), parent=second.id)
    points = [first, replace(second, damaged=True), third]
    assert whole(points) == [first]

    def told(some: list[Point]) -> tuple[str, str]:
        (one,) = protection([Ward("web", "new")], some, Measure(NOW, 26 * 3600, "here"))
        return one.newest, one.problem

    assert told(points) == (first.id, "its newest point is 50 h old, 26 h are the most")
    assert told([first, second, third]) == (third.id, "it never was found whole")
    assert told([first, replace(second, verified=second.taken), third]) == (third.id, "")
    assert told([third]) == ("", "none of its points is whole"), "what it lies on is gone"
    assert told([replace(third, parent=third.id)]) == ("", "none of its points is whole")
    assert told([]) == ("", "it has no point")
    assert told([first, point(50, 20, host="there")]) == (first.id, "its newest point is 50 h old, 26 h are the most")
