"""Healing on a fake host: what is restarted when, what is left alone, and what is told."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

import pytest

from tests.services.shop import NGINX, Shop
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
    ward.pass_seconds(60)
    assert any("the guest" in text or "does not run" in text for text in ward.told)
    ward.shop.host.power(["web-01"], "start")
    ward.shop.fake.advance(30)
    ward.pass_seconds(400)
    assert any("is well again" in text for text in ward.told)


def test_the_latency_of_looks_is_remembered_and_bounded(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heal, "KEPT", 16)
    ward.pass_seconds(100)
    history = ward.watch.wards["nginx"].history
    assert {name: len(looks) for name, looks in history.items()} == {"unit": 16, "web": 16}
    assert all(look.good for look in history["unit"])


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

    healer = shop.services.watch(hear)
    thread = threading.Thread(target=healer.run)
    thread.start()
    dies(shop)
    for _ in range(200):
        shop.fake.advance(1)
        if seen.wait(0.1):
            break
    healer.stop()
    thread.join(20)
    assert not thread.is_alive()
    assert next(text for text in told if "restarted" in text).startswith("web-01: nginx restarted (try 1 of 3)")
