"""Rolling changes on a fake host: the order, the halt, the way back, and what a death in the middle leaves."""

from __future__ import annotations

import pytest

from tests.services.shop import NGINX, Shop, site
from vmhost.engine.services import carry
from vmhost.engine.services.line import Lines
from vmhost.model.errors import ApplyError, NotFound, PartlyDone, Refused
from vmhost.model.events import Event, Notice
from vmhost.model.guestops import ActOnUnit, GuestOp
from vmhost.model.services import Rolling
from vmhost.plan.rolling import batches, begins_with

NEW = NGINX.replace("1.22.1-9", "1.26.3-1").replace('"1.22"', '"1.26"').replace("listen 80", "listen 80 default")
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
    ("how", "down", "order"),
    [
        (Rolling(1, 2, 2), (), [("a",), ("b", "c"), ("d", "e")]),
        (Rolling(0, 3, 2), (), [("a", "b"), ("c", "d"), ("e",)]),
        (Rolling(2, 9, 9), (), [("a",), ("b",), ("c", "d", "e")]),
        (Rolling(1, 2, 2), ("d",), [("d",), ("a", "b"), ("c", "e")]),
        (Rolling(9, 1, 1), (), [("a",), ("b",), ("c",), ("d",), ("e",)]),
    ],
)
def test_the_order_of_batches(how: Rolling, down: tuple[str, ...], order: list[tuple[str, ...]]) -> None:
    assert list(batches("abcde", how, down)) == order


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


def test_to_a_version_without_a_site_file(shop: Shop) -> None:
    plan = shop.services.plan_roll("nginx", Rolling(), to="1.26")
    shop.services.roll(plan)
    assert versions(shop) == ["1.26.3-1"] * 3
    assert plan.fragment == 'services:\n  nginx:\n    version: "1.26"\n    packages: [nginx=1.26.3-1]\n'
    files = shop.picture("web-01")["files"]
    assert files["/etc/nginx/conf.d/shop.conf"] == b"server { listen 80; }\n"
    with pytest.raises(Refused, match=r"no version of nginx begins with 2; the guest's mirrors hold 1\.26\.3-1, 1\.22"):
        shop.services.plan_roll("nginx", Rolling(), to="2")


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


def _same_but_for_what_was_before(shop: Shop, before: list[dict[str, object]]) -> None:
    for guest, old in zip(GUESTS, before, strict=True):
        now = shop.picture(guest)
        for part in ("files", "access"):
            now[part].pop("/var/lib/vmhost/services/nginx.previous.json", None)
        assert now == old, guest


def test_without_permission_to_go_back_it_halts_where_it_is(shop: Shop) -> None:
    breaks(shop, "web-02")
    plan = shop.services.plan_roll("nginx", Rolling(), site=site(group(NEW)))
    with pytest.raises(PartlyDone, match="done: web-01; not tried: cache-01"):
        shop.services.roll(plan)
    assert versions(shop) == ["1.26.3-1", "1.26.3-1", "1.22.1-9"]
    assert {item.deployed.roll for item in shop.services.find()} == {plan.target}
    shop.services.roll(shop.services.plan_back("nginx", Rolling()))
    assert versions(shop) == ["1.22.1-9"] * 3
    assert {(row.version, row.health) for row in shop.services.list()} == {("1.22", "up")}
    assert all(item.deployed.roll == "" for item in shop.services.find())
    with pytest.raises(NotFound, match="nothing is there to go back to"):
        shop.services.plan_back("nginx", Rolling())


class _Killed(BaseException):
    """The process is gone: nothing is caught, nothing is undone."""


@pytest.mark.parametrize("way", ["on", "back"])
@pytest.mark.parametrize("step", range(1, 12, 2))
def test_what_was_interrupted_goes_on_or_back(shop: Shop, monkeypatch: pytest.MonkeyPatch, way: str, step: int) -> None:
    original, count = carry.do, 0

    def dying(guest: str, op: GuestOp, lines: Lines) -> None:
        nonlocal count
        count += 1
        if count == step:
            raise _Killed
        original(guest, op, lines)

    plan = shop.services.plan_roll("nginx", Rolling(), site=site(group(NEW)))
    monkeypatch.setattr(carry, "do", dying)
    with pytest.raises(_Killed):
        shop.services.roll(plan, rollback=True)
    monkeypatch.undo()
    shop.fake.locks.break_all()
    assert {item.deployed.roll for item in shop.services.find()} == {plan.target}
    if way == "on":
        shop.services.roll(shop.services.plan_roll("nginx", Rolling(), site=site(group(NEW))))
        assert {row.version for row in shop.services.list()} == {"1.26"}
    else:
        shop.services.roll(shop.services.plan_back("nginx", Rolling()))
        shop.deploy(group())
        assert {row.version for row in shop.services.list()} == {"1.22"}
    assert {row.drift for row in shop.services.list()} == {()}
    assert all(item.deployed.roll == "" for item in shop.services.find())


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
    with pytest.raises(Refused, match="was changed; deploy it from its site first"):
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
