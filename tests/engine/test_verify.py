"""The last look: it finds what is not as the plan said, on what the plan touched, and reads nothing else."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import pytest

from tests.engine.scenes import BIGGER, OTHER, WEB, Scene, site, stage
from vmhost.model.errors import VerifyError
from vmhost.ops.host import Host
from vmhost.testing import FakeHost

UNSEEN = WEB + "    ready: {by: none}\n"
BESIDE = Scene(OTHER, lambda host: host.plan(site(OTHER, UNSEEN)))


class Meddling:
    """A hypervisor that somebody else changes while a guest starts; it tells at what was looked at."""

    def __init__(self, fake: FakeHost, meddle: Callable[[FakeHost], object]) -> None:
        self._fake = fake
        self._meddle = meddle
        self.looked_at: list[Collection[str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fake.hypervisor, name)

    def start(self, uuid: str) -> None:
        self._fake.hypervisor.start(uuid)
        self._meddle(self._fake)

    def look_at(self, uuids: Collection[str]) -> Any:
        self.looked_at.append(uuids)
        return self._fake.hypervisor.look_at(uuids)


def applied(fake: FakeHost, meddle: Callable[[FakeHost], object]) -> list[Collection[str]]:
    meddling = Meddling(fake, meddle)
    Host(ports=replace(fake.ports, hypervisor=meddling)).apply_site(site(OTHER, UNSEEN))  # type: ignore[arg-type]
    return meddling.looked_at


def volume_gone(fake: FakeHost, end: str) -> None:
    uuid = fake.domain("web-01").uuid
    (name,) = [one for one in fake.world.pools["vmhost"].volumes if one.startswith(uuid) and end in one]
    del fake.world.pools["vmhost"].volumes[name]


def grown(fake: FakeHost) -> None:
    for name, volume in fake.world.pools["vmhost"].volumes.items():
        if name.startswith(fake.domain("web-01").uuid) and "root" in name:
            volume.capacity *= 2


@pytest.mark.parametrize(
    ("meddle", "field"),
    [
        (lambda fake: volume_gone(fake, "root"), "disks.root.volume is gone"),
        (lambda fake: volume_gone(fake, "seed"), "seed is gone"),
        (grown, "disks.root.size is 8G"),
        (lambda fake: fake.edit("web-01", lambda xml: xml.replace(">1048576<", ">2097152<")), "memory.max is 2G"),
        (lambda fake: fake.hypervisor.power_off(fake.domain("web-01").uuid), "state is stopped"),
        (lambda fake: fake.hypervisor.set_autostart(fake.domain("web-01").uuid, True), "autostart is on"),
    ],
)
def test_what_is_not_as_planned_is_told(meddle: Callable[[FakeHost], object], field: str) -> None:
    fake = stage(BESIDE)
    with pytest.raises(VerifyError) as caught:
        applied(fake, meddle)
    assert any(f"web-01: {field}" in text for text in caught.value.differences), caught.value.differences
    assert not fake.world.journals


def test_a_guest_that_is_gone_is_told() -> None:
    fake = stage(BESIDE)

    def gone(fake: FakeHost) -> None:
        uuid = fake.domain("web-01").uuid
        fake.hypervisor.undefine(uuid)
        fake.hypervisor.power_off(uuid)

    with pytest.raises(VerifyError, match="1 fields differ") as caught:
        applied(fake, gone)
    assert caught.value.differences == ("web-01: guest is absent, should be defined (the site says otherwise)",)


def test_only_what_was_touched_is_read() -> None:
    fake = stage(BESIDE)
    (looked,) = applied(fake, lambda _: None)
    assert list(looked) == [fake.domain("web-01").uuid]


def test_a_volume_that_alone_is_made_is_read() -> None:
    fake = stage(Scene(WEB, BESIDE.propose))
    volume_gone(fake, "seed")
    host = Host(ports=fake.ports)
    assert len(host.apply_site(site(WEB)).done) == 1
    assert host.drift(site(WEB)) == ()


def test_a_change_is_verified_on_the_volumes_that_it_made() -> None:
    fake = stage(Scene(WEB, BESIDE.propose))
    host = Host(ports=fake.ports)
    host.apply_site(site(BIGGER.replace("cpus: 2", "cpus: 1")))
    assert host.drift(site(BIGGER.replace("cpus: 2", "cpus: 1"))) == ()
