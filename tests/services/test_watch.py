"""Healing on a fake host: what is restarted when, what is left alone, and what is told."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

import pytest

from tests.services.shop import NGINX, Shop
from vmhost.cli.watch import _both
from vmhost.model.events import Event, Notice
from vmhost.ops import heal
from vmhost.ops.heal import GuestWatch

HEALED = (
    NGINX.replace("[web-01, web-02]", "[web-01]")
    + """\
    probes:
      unit: {systemd: true, role: liveness, interval: 2s, failures: 2, start_period: 5s}
      web: {http: 80, interval: 5s}
    restart: {policy: on-failure, backoff: 4s, most: 20s, tries: 3, quiet: 60s}
"""
)


class Ward:
    """A watch over web-01 that a test turns by hand."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.told: list[str] = []
        self.watch = GuestWatch(shop.fake.ports, shop.services, "web-01", self._hear)
        self.watch.take(shop.services.find(guests=["web-01"]))

    def _hear(self, event: Event) -> None:
        assert isinstance(event, Notice)
        self.told.append(event.text)

    def pass_seconds(self, seconds: float) -> None:
        end = self.shop.fake.world.now + seconds
        while (now := self.shop.fake.world.now) < end:
            self.shop.fake.advance(min(self.watch.turn() or 0.1, end - now))

    def starts(self) -> int:
        with self.shop.inside("web-01") as system:
            return system.land.units["nginx.service"].starts


@pytest.fixture
def ward() -> Ward:
    shop = Shop()
    shop.deploy(HEALED)
    made = Ward(shop)
    made.pass_seconds(10)
    assert made.told == []
    return made


def dies(shop: Shop, *, broken: bool = False) -> None:
    with shop.inside("web-01") as system:
        unit = system.land.units["nginx.service"]
        unit.active, unit.failed, unit.broken = False, True, broken


def test_what_dies_is_restarted_and_the_time_is_told(ward: Ward) -> None:
    before = ward.starts()
    dies(ward.shop)
    ward.pass_seconds(20)
    assert ward.starts() == before + 1
    down, restarted, up, well = ward.told
    assert down.startswith("nginx down: unit: nginx.service is failed")
    assert restarted.startswith("nginx restarted (try 1 of 3): unit: nginx.service is failed (failed, signal)")
    assert up.startswith("nginx up: ")
    assert re.fullmatch(r"nginx is well again after 2\.\d s and 1 try", well)
    jobs = [job for job in ward.shop.host.jobs() if job.kind == "service heal"]
    assert [(job.subject, job.state) for job in jobs] == [("nginx web-01", "done")]
    assert "try 1 of 3" in ward.shop.host.job_log(jobs[0].id)[0]


def test_what_does_not_start_is_tried_later_and_later_and_given_up(ward: Ward) -> None:
    dies(ward.shop, broken=True)
    ward.pass_seconds(120)
    given_up = "nginx given up after 3 tries: unit: nginx.service is failed (failed, signal); web: connection refused"
    given_up += "; vmhost service status nginx"
    assert [text for text in ward.told if "not restarted" in text or "given up" in text] == [
        *(
            f"nginx was not restarted (try {number} of 3): Job for nginx.service failed because the control process "
            "exited with error code. (ended with 1)"
            for number in (1, 2, 3)
        ),
        given_up,
    ]
    told = len(ward.told)
    ward.pass_seconds(300)
    assert len(ward.told) == told, "it stays given up, and nothing is told twice"


@pytest.mark.parametrize(
    "stop",
    [
        lambda shop: shop.services.act(["nginx"], "stop", guests=["web-01"]),
        lambda shop: shop.host.exec(["web-01"], ("systemctl", "stop", "--", "nginx.service"), sudo=True),
    ],
    ids=["by vmhost", "by hand"],
)
def test_what_somebody_stopped_is_left_alone(ward: Ward, stop: Callable[[Shop], object]) -> None:
    before = ward.starts()
    stop(ward.shop)
    ward.pass_seconds(60)
    assert ward.starts() == before


def test_a_guest_that_another_vmhost_is_at_work_on_is_left_alone_until_it_is_done(ward: Ward) -> None:
    before = ward.starts()
    uuid = ward.shop.fake.domain("web-01").uuid
    held, over = threading.Event(), threading.Event()

    def other() -> None:
        with ward.shop.fake.locks.guests([uuid]):
            held.set()
            over.wait(60)

    thread = threading.Thread(target=other)
    thread.start()
    assert held.wait(10)
    dies(ward.shop)
    ward.pass_seconds(30)
    assert ward.starts() == before
    over.set()
    thread.join(10)
    ward.pass_seconds(10)
    assert ward.starts() == before + 1


def test_a_guest_that_is_gone_raises_nothing_and_comes_back(ward: Ward) -> None:
    ward.shop.host.power(["web-01"], "power-off")
    ward.pass_seconds(300)
    (told,) = [text for text in ward.told if "restarted" in text]
    assert told.startswith("nginx was not restarted, since its guest is not reached: ")
    assert not any("given up" in text for text in ward.told)
    assert [job for job in ward.shop.host.jobs() if job.kind == "service heal"] == []
    ward.shop.host.power(["web-01"], "start")
    ward.shop.fake.advance(30)
    ward.pass_seconds(400)
    assert any("is well again" in text for text in ward.told)


def watched(shop: Shop, hear: Callable[[Event], None], until: threading.Event) -> None:
    """Let a real watch run, on a host whose time passes second by second, until that happens."""
    healer = shop.services.watch(hear)
    thread = threading.Thread(target=healer.run)
    thread.start()
    for _ in range(600):
        shop.fake.advance(1)
        if until.wait(0.1):
            break
    healer.stop()
    thread.join(20)
    assert not thread.is_alive()
    assert until.is_set()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("deadly", [False, True], ids=["told", "its thread dies"])
def test_what_nobody_foresaw_in_one_guest_ends_no_watch(monkeypatch: pytest.MonkeyPatch, deadly: bool) -> None:
    shop = Shop()
    shop.deploy(HEALED.replace("[web-01]", "[web-01, web-02]"))
    dies(shop)
    with shop.inside("web-02") as system:
        system.land.units["nginx.service"].active = False
    told: list[str] = []
    over = threading.Event()
    monkeypatch.setattr(heal, "REFRESH", 0.2)
    original, failures = GuestWatch.turn, 0

    def turn(watch: GuestWatch) -> float:
        nonlocal failures
        if "nginx" in watch.wards and watch.wards["nginx"].item.guest == "web-01" and failures < 3:
            failures += 1
            raise KeyError("\x1b[2J")
        return original(watch)

    def hear(event: Event) -> None:
        assert isinstance(event, Notice)
        told.append(f"{event.subject}: {event.text}")
        if deadly and "unforeseen" in event.text:
            raise RuntimeError("nobody listens")
        if any("web-01: nginx restarted" in text for text in told):
            over.set()

    monkeypatch.setattr(GuestWatch, "turn", turn)
    watched(shop, hear, over)
    unforeseen = [text for text in told if "unforeseen" in text]
    assert len(unforeseen) == 3
    assert unforeseen[0].startswith(r"web-01: unforeseen KeyError: '\x1b[2J'; looking again in")


class Keeps:
    """A keeper of ports that has nothing to do."""

    def __init__(self) -> None:
        self.stopped = threading.Event()

    def run(self) -> int:
        assert self.stopped.wait(20)
        return 7

    def stop(self) -> None:
        self.stopped.set()


class Heals:
    """A healer that ends at once, well or not."""

    def __init__(self, error: BaseException | None, keeper: Keeps) -> None:
        self.error, self.keeper = error, keeper

    def run(self) -> None:
        if self.error is not None:
            raise self.error
        self.keeper.stop()

    def stop(self) -> None: ...


def test_a_healer_that_ends_by_itself_ends_the_watch_with_its_error() -> None:
    keeper = Keeps()
    assert _both(keeper, Heals(None, keeper)) == 7  # type: ignore[arg-type]
    keeper = Keeps()
    with pytest.raises(KeyError, match="surprise"):
        _both(keeper, Heals(KeyError("surprise"), keeper))  # type: ignore[arg-type]


def test_all_guests_are_watched_until_it_is_stopped() -> None:
    """The threads of a real watch, on a host whose time stands still but for what they wait for."""
    shop = Shop()
    shop.deploy(HEALED.replace("[web-01]", "[web-01, web-02]"))
    told: list[str] = []
    seen = threading.Event()

    def hear(event: Event) -> None:
        told.append(f"{event.subject}: {event.text}")  # type: ignore[union-attr]
        if any("restarted" in text for text in told):
            seen.set()

    dies(shop)
    watched(shop, hear, seen)
    assert next(text for text in told if "restarted" in text).startswith("web-01: nginx restarted (try 1 of 3)")
