"""Rolling changes on a fake host: the order, the halt, the way back, and what a death in the middle leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.services.shop import NGINX, Shop, site
from vmhost.engine.services import carry
from vmhost.engine.services.line import Lines
from vmhost.engine.services.probing import Looker
from vmhost.model.errors import ApplyError, DriverError, NotFound, PartlyDone, Refused, Unreachable
from vmhost.model.events import Event, Notice
from vmhost.model.guestops import ActOnUnit, GuestOp, PutFile
from vmhost.model.services import Look, Rolling
from vmhost.model.spec.service import ProbeSpec, ServiceState
from vmhost.ops import serviceback
from vmhost.ops.serviceroll import Roll
from vmhost.plan.rolling import batches, begins_with, refusal
from vmhost.testing.commands import Inside, Ran

NEW = NGINX.replace("1.22.1-9", "1.26.3-1").replace('"1.22"', '"1.26"').replace("listen 80", "listen 80 default")
NEWEST = NEW.replace("default", "default_server").replace('"1.26"', '"1.26b"')
GUESTS = ("web-01", "web-02", "cache-01")


def group(text: str = NGINX) -> str:
    return text.replace("[web-01, web-02]", "[web-01, web-02, cache-01]")


@pytest.fixture
def shop() -> Shop:
    made = Shop()
    made.deploy(group())
    return made


def versions(shop: Shop) -> list[str]:
    return [shop.picture(guest)["packages"]["nginx"] for guest in GUESTS]


def breaks(shop: Shop, guest: str) -> None:
    """In this guest the new version starts, and does not listen."""
    real = shop.fake.programs["systemctl"]

    def systemctl(inside, arguments, data):  # type: ignore[no-untyped-def]
        ran = real(inside, arguments, data)
        unit = inside.system.land.units.get("nginx.service")
        if inside.guest == guest and unit is not None:
            unit.ports = [] if inside.system.land.packages.get("nginx") == "1.26.3-1" else [80]
        return ran

    shop.fake.programs["systemctl"] = systemctl


@pytest.mark.parametrize(
    ("how", "down", "staying", "order"),
    [
        (Rolling(1, 2, 2), "", "", [("a",), ("b", "c"), ("d", "e")]),
        (Rolling(0, 3, 2), "", "", [("a", "b"), ("c", "d"), ("e",)]),
        (Rolling(2, 9, 9), "", "", [("a",), ("b",), ("c", "d", "e")]),
        (Rolling(1, 2, 2), "d", "", [("d",), ("a", "b"), ("c", "e")]),
        (Rolling(9, 1, 1), "", "", [("a",), ("b",), ("c",), ("d",), ("e",)]),
        (Rolling(0, 9, 3), "ex", "x", [("e",), ("a", "b"), ("c", "d")]),
        (Rolling(0, 9, 3), "xy", "xy", [("a",), ("b",), ("c",), ("d",), ("e",)]),
    ],
)
def test_the_order_of_batches(how: Rolling, down: str, staying: str, order: list[tuple[str, ...]]) -> None:
    assert list(batches("abcde", how, down, staying)) == order


def test_it_is_refused_when_nobody_else_may_be_away() -> None:
    assert refusal(["x"], Rolling(0, 9, 2)) == ""
    assert refusal(["x", "y"], Rolling(0, 9, 2)) == "x, y are down already, and at most 2 may be"


@pytest.mark.parametrize(
    ("package", "version", "answer"),
    [
        ("1.26.3-1", "1.26", True),
        ("1:1.26.3-1", "1.26", True),
        ("1.26.3-1", "1.2", False),
        ("1.260-1", "1.26", False),
        ("1.26-1", "1.26", True),
        ("1.26.3-1", "1.26.3-1", True),
        ("5:7.0.15-1", "5:7.0", True),
        ("1x26-1", "1.26", False),
    ],
)
def test_which_package_is_of_a_version(package: str, version: str, answer: bool) -> None:
    assert begins_with(package, version) is answer


def test_it_goes_canary_first_and_batch_by_batch(shop: Shop) -> None:
    told: list[Event] = []
    plan = shop.services.plan_roll("nginx", Rolling(1, 2, 2), site=site(group(NEW)))
    assert [line for line in plan.lines() if line.startswith("batch")] == [
        "batch 1 (canary): web-01",
        "batch 2: web-02, cache-01",
    ]
    results = shop.services.roll(plan, on_event=told.append)
    assert [result.text for result in results] == ["rolled"] * 3
    assert versions(shop) == ["1.26.3-1"] * 3
    assert {(row.version, row.drift) for row in shop.services.list()} == {("1.26", ())}
    assert all(item.deployed.roll == "" for item in shop.services.find())
    halted = [event.text for event in told if isinstance(event, Notice)]
    assert halted == ["batch 1 of 2: web-01", "batch 2 of 2: web-02, cache-01"]
    assert shop.services.plan_roll("nginx", Rolling(), site=site(group(NEW))).empty


def test_guests_that_the_site_means_no_more_stay_as_they_are(shop: Shop) -> None:
    assert shop.services.plan_roll("nginx", Rolling(), site=site(NEW)).batches == (("web-01",), ("web-02",))


def test_to_a_version_without_a_site_file(shop: Shop) -> None:
    plan = shop.services.plan_roll("nginx", Rolling(), to="1.26")
    shop.services.roll(plan)
    assert versions(shop) == ["1.26.3-1"] * 3
    assert plan.fragment == 'services:\n  nginx:\n    version: "1.26"\n    packages: [nginx=1.26.3-1]\n'
    files = shop.picture("web-01")["files"]
    assert files["/etc/nginx/conf.d/shop.conf"] == b"server { listen 80; }\n"
    with pytest.raises(Refused, match=r"no version of nginx begins with 2; the guest's mirrors hold 1\.26\.3-1, 1\.22"):
        shop.services.plan_roll("nginx", Rolling(), to="2")


def test_the_way_back_knows_the_version_of_a_package_that_is_not_pinned(shop: Shop) -> None:
    shop.deploy(group(NGINX.replace("nginx=1.22.1-9", "nginx")))
    before = [shop.picture(guest) for guest in GUESTS]
    shop.services.roll(shop.services.plan_roll("nginx", Rolling(), to="1.26"))
    assert versions(shop) == ["1.26.3-1"] * 3
    shop.services.roll(shop.services.plan_back("nginx", Rolling()))
    assert versions(shop) == ["1.22.1-9"] * 3
    _same_but_for_what_was_before(shop, before)


def test_a_failing_canary_takes_everything_back(shop: Shop) -> None:
    breaks(shop, "web-01")
    before = [shop.picture(guest) for guest in GUESTS]
    plan = shop.services.plan_roll("nginx", Rolling(), site=site(group(NEW)))
    with pytest.raises(ApplyError, match=r"nginx is not ready .*; the roll was taken back") as caught:
        shop.services.roll(plan, rollback=True)
    assert (caught.value.undone, caught.value.leftovers) == (("web-01",), ())
    _same_but_for_what_was_before(shop, before)
    assert {row.version for row in shop.services.list()} == {"1.22"}
    assert all(item.deployed.roll == "" for item in shop.services.find())


def test_a_failure_in_a_later_batch_takes_back_the_earlier_ones(shop: Shop) -> None:
    breaks(shop, "web-02")
    before = [shop.picture(guest) for guest in GUESTS]
    plan = shop.services.plan_roll("nginx", Rolling(), site=site(group(NEW)))
    with pytest.raises(ApplyError) as caught:
        shop.services.roll(plan, rollback=True)
    assert caught.value.undone == ("web-02", "web-01")
    _same_but_for_what_was_before(shop, before)


def _same_but_for_what_was_before(shop: Shop, before: list[dict[str, Any]]) -> None:
    for guest, old in zip(GUESTS, before, strict=True):
        now = shop.picture(guest)
        for part in ("files", "access"):
            for picture in (now, old):
                picture[part].pop("/var/lib/vmhost/services/nginx.previous.json", None)
        assert now == old, guest


def test_without_permission_to_go_back_it_halts_where_it_is(shop: Shop) -> None:
    breaks(shop, "web-02")
    before = [shop.picture(guest) for guest in GUESTS]
    plan = shop.services.plan_roll("nginx", Rolling(), site=site(group(NEW)))
    with pytest.raises(PartlyDone, match="done: web-01; not tried: cache-01"):
        shop.services.roll(plan)
    assert versions(shop) == ["1.26.3-1", "1.26.3-1", "1.22.1-9"]
    assert marks(shop) == plan.marks
    shop.services.roll(shop.services.plan_back("nginx", Rolling()))
    assert versions(shop) == ["1.22.1-9"] * 3
    _same_but_for_what_was_before(shop, before)
    assert {(row.version, row.health) for row in shop.services.list()} == {("1.22", "up")}
    assert all(item.deployed.roll == "" for item in shop.services.find())
    with pytest.raises(NotFound, match="nothing is there to go back to"):
        shop.services.plan_back("nginx", Rolling())


class _Killed(BaseException):
    """The process is gone: nothing is caught, nothing is undone."""


MORE = (
    NEW.rstrip()
    + """
      - {path: /etc/nginx/conf.d/more.conf, content: "# more\\n", after: restart}
      - {path: /etc/nginx/conf.d/even-more.conf, content: "# even more\\n", after: restart}
"""
)


def marks(shop: Shop) -> dict[str, str]:
    return {item.guest: item.deployed.roll for item in shop.services.find()}


def carried_out_until(shop: Shop, monkeypatch: pytest.MonkeyPatch, plan: Roll, step: int) -> None:
    """A roll whose vmhost dies before that operation."""
    original, count = carry.do, 0

    def dying(guest: str, op: GuestOp, lines: Lines) -> None:
        nonlocal count
        count += 1
        if count == step:
            raise _Killed
        original(guest, op, lines)

    monkeypatch.setattr(carry, "do", dying)
    monkeypatch.setattr(serviceback, "do", dying)
    with pytest.raises(_Killed):
        shop.services.roll(plan, rollback=True)
    monkeypatch.undo()
    shop.fake.locks.break_all()
    assert marks(shop) == plan.marks


def killed(shop: Shop, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """A roll to ``MORE`` whose vmhost dies before that operation."""
    carried_out_until(shop, monkeypatch, shop.services.plan_roll("nginx", Rolling(), site=site(group(MORE))), step)


@pytest.mark.parametrize("on", [True, False], ids=["on, then back", "back"])
@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 6, 7, 8, 9, 12])
def test_what_was_interrupted_goes_on_or_back(shop: Shop, monkeypatch: pytest.MonkeyPatch, on: bool, step: int) -> None:
    """The first eight operations are those of the first guest."""
    before = [shop.picture(guest) for guest in GUESTS]
    killed(shop, monkeypatch, step)
    if on:
        shop.services.roll(shop.services.plan_roll("nginx", Rolling(), site=site(group(MORE))))
        assert {(row.version, row.drift, row.roll) for row in shop.services.list()} == {("1.26", (), "")}
        assert versions(shop) == ["1.26.3-1"] * 3
    shop.services.roll(shop.services.plan_back("nginx", Rolling()))
    _same_but_for_what_was_before(shop, before)
    assert {(row.version, row.drift, row.roll) for row in shop.services.list()} == {("1.22", (), "")}


def test_a_way_back_that_was_interrupted_goes_on(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [shop.picture(guest) for guest in GUESTS]
    shop.services.roll(shop.services.plan_roll("nginx", Rolling(), site=site(group(MORE))))
    for step in (1, 3, 2, 1):  # each begins where the last one ended
        carried_out_until(shop, monkeypatch, shop.services.plan_back("nginx", Rolling()), step)
        assert set(marks(shop).values()) == {serviceback.BACK}
        with pytest.raises(Refused, match="a roll is under way there, to something else"):
            shop.services.plan_roll("nginx", Rolling(), site=site(group(NEWEST)))
    shop.services.roll(shop.services.plan_back("nginx", Rolling()))
    _same_but_for_what_was_before(shop, before)
    assert set(marks(shop).values()) == {""}


def test_nothing_else_begins_while_a_roll_is_under_way(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    killed(shop, monkeypatch, 5)
    for wanted in (group(NEWEST), group(), MORE):
        with pytest.raises(Refused, match="a roll is under way there, to something else"):
            shop.services.plan_roll("nginx", Rolling(), site=site(wanted))
    with pytest.raises(Refused, match="a roll is under way there, to something else"):
        shop.services.plan_roll("nginx", Rolling(), to="1.26")


def test_what_a_roll_has_not_reached_is_not_taken_back_to_before_the_last_one(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.services.roll(shop.services.plan_roll("nginx", Rolling(), site=site(group(NEW))))
    before = [shop.picture(guest) for guest in GUESTS]
    killed(shop, monkeypatch, 4)
    shop.services.roll(shop.services.plan_back("nginx", Rolling()))
    _same_but_for_what_was_before(shop, before)
    assert {row.version for row in shop.services.list()} == {"1.26"}
    shop.deploy(group(NEWEST))
    with pytest.raises(NotFound, match="nothing is there to go back to"):
        shop.services.plan_back("nginx", Rolling())


def test_what_the_failing_guest_left_over_is_told_and_the_roll_stays_open(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection ends after a file was put, and its undo fails, too; then the guest is well again."""
    original, puts = carry.do, 0

    def failing(guest: str, op: GuestOp, lines: Lines) -> None:
        nonlocal puts
        if isinstance(op, PutFile) and op.path.endswith("shop.conf"):
            puts += 1
            if puts == 2:
                raise DriverError("it fails")
        original(guest, op, lines)
        if puts == 1:
            raise Unreachable("the connection ended")

    plan = shop.services.plan_roll("nginx", Rolling(), site=site(group(NEW)))
    monkeypatch.setattr(carry, "do", failing)
    with pytest.raises(ApplyError, match=r"the connection ended; not all of it was taken back") as caught:
        shop.services.roll(plan, rollback=True)
    (left,) = caught.value.leftovers
    assert left.startswith("web-01: nginx: change file /etc/nginx/conf.d/shop.conf: vmhost-put /etc/nginx/conf.d/shop")
    assert marks(shop) == plan.marks
    back = shop.services.plan_back("nginx", Rolling())
    assert str(back) == "nginx: all is done; the mark of the roll goes"
    shop.services.roll(back)
    assert set(marks(shop).values()) == {""}


def test_what_could_not_be_brought_back_is_not_rolled(shop: Shop) -> None:
    path = "/etc/nginx/conf.d/shop.conf"
    for change, words in ((None, "is gone"), (b"by hand", "was changed")):
        with shop.inside("web-02") as system:
            system.files.pop(path, None)
            if change is not None:
                system.files[path] = change
        with pytest.raises(Refused, match=rf"{path} {words}: there would be no way back to it; deploy it first"):
            shop.services.plan_roll("nginx", Rolling(), site=site(group(NEW)))
    shop.deploy(group())
    plan = shop.services.plan_roll("nginx", Rolling(), site=site(group(NEW)))
    assert len(plan.batches) == 3


def test_a_dead_guest_does_not_keep_the_others_from_going_back(shop: Shop) -> None:
    shop.services.roll(shop.services.plan_roll("nginx", Rolling(), site=site(group(NEW))))
    uuid = shop.fake.domain("web-01").uuid
    shop.fake.hypervisor.power_off(uuid)
    plan = shop.services.plan_back("nginx", Rolling())
    assert "not known: web-01: " in str(plan)
    with pytest.raises(PartlyDone, match=r"done: cache-01, web-02; not tried: none") as caught:
        shop.services.roll(plan)
    assert list(caught.value.failures) == ["web-01"]
    assert versions(shop)[1:] == ["1.22.1-9"] * 2


def test_one_bad_look_between_the_batches_halts_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    original, looks = Looker.look, 0

    def look(self: Looker, name: str, probe: ProbeSpec, state: ServiceState) -> Look:
        nonlocal looks
        seen = original(self, name, probe, state)
        looks += 1
        return Look(name, False, "a hiccup", 0.0) if looks == 3 else seen

    plan = shop.services.plan_roll("nginx", Rolling(), site=site(group(NEW)))
    monkeypatch.setattr(Looker, "look", look)
    assert len(shop.services.roll(plan)) == 3
    assert looks > 3


def test_a_dry_run_fetches_no_lists_of_packages(shop: Shop) -> None:
    real, fetched = shop.fake.programs["env"], 0

    def env(inside: Inside, arguments: Sequence[str], data: bytes) -> Ran:
        nonlocal fetched
        fetched += "update" in arguments
        return real(inside, arguments, data)

    shop.fake.programs["env"] = env
    shop.services.plan_roll("nginx", Rolling(), to="1.26")
    assert fetched == 0
    shop.services.plan_roll("nginx", Rolling(), to="1.26", refresh=True)
    assert fetched == 1


def test_it_does_not_begin_while_too_many_are_down(shop: Shop) -> None:
    plan = shop.services.plan_roll("nginx", Rolling(), site=site(group(NEW)))
    shop.services.roll(plan)
    with shop.inside("web-01") as system:
        system.land.units["nginx.service"].active = False
    newer = group(NEW).replace("default", "default_server")
    order = shop.services.plan_roll("nginx", Rolling(), site=site(newer)).batches
    assert order[0] == ("web-01",), "nobody misses the one that is down"
    part = newer.replace("[web-01, web-02, cache-01]", "[web-02, cache-01]")
    with pytest.raises(Refused, match="web-01 is down already, and at most 1 may be"):
        shop.services.plan_roll("nginx", Rolling(), site=site(part))


def test_a_file_that_somebody_changed_stops_a_roll_to_a_version(shop: Shop) -> None:
    with shop.inside("web-02") as system:
        system.files["/etc/nginx/conf.d/shop.conf"] = b"by hand"
    with pytest.raises(Refused, match="was changed: there would be no way back to it; deploy it first"):
        shop.services.plan_roll("nginx", Rolling(), to="1.26")


def test_never_are_more_away_than_may_be(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    original = carry.do
    away: set[str] = set()
    most = 0

    def counting(guest: str, op: GuestOp, lines: Lines) -> None:
        nonlocal most
        if isinstance(op, ActOnUnit):
            away.add(guest)
            most = max(most, len(away))
        original(guest, op, lines)
        away.discard(guest)

    monkeypatch.setattr(carry, "do", counting)
    shop.services.roll(shop.services.plan_roll("nginx", Rolling(0, 9, 2), site=site(group(NEW))))
    assert 1 <= most <= 2
