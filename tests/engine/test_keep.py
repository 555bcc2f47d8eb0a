"""What ``vmhost watch`` does: ports that others changed are put back, what it cannot mend is told once, and it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

import pytest

from vmhost.model.events import Event, Notice
from vmhost.model.reach import AccessPort
from vmhost.model.vlans import NO_VLAN, PortVlans, port_vlans
from vmhost.ops import keep
from vmhost.ops.host import Host
from vmhost.ops.sites import parse_site
from vmhost.render.parse.domain import parse_domain
from vmhost.testing import FakeHost

SITE = """
apiVersion: vmhost/v1
name: shop
bridges: {br0: {mode: vlan-aware}, br1: {mode: vlan-aware}}
networks: {front: {bridge: br0, vlan: 100, subnet: 10.1.0.0/24, reach: agent}}
defaults: {image: debian-12, memory: 512M, disks: [{size: 4G}], nics: [{network: front}], ready: {by: none}}
guests: {web: , db: }
"""


@dataclass
class Watched:
    """A host that is watched; ``said`` is what the watch tells."""

    fake: FakeHost
    said: list[str] = field(default_factory=list)
    came: threading.Condition = field(default_factory=threading.Condition)
    repaired: int = -1

    def tell(self, event: Event) -> None:
        assert isinstance(event, Notice)
        with self.came:
            self.said.append(f"{event.subject}: {event.text}")
            self.came.notify_all()

    def until(self, true: Callable[[], bool]) -> None:
        """Wait until something is so; it is looked at whenever something is told."""
        deadline = monotonic() + 40
        while monotonic() < deadline:
            if true():
                return
            with self.came:
                self.came.wait(0.05)
        raise AssertionError(f"it never came so; it said {self.said}")

    def tap(self, guest: str = "web") -> str:
        return parse_domain(self.fake.domain(guest).xml).nics[0].tap

    def vlans(self, guest: str = "web") -> PortVlans:
        return next(link.vlans for link in self.fake.links.links() if link.name == self.tap(guest))


@pytest.fixture
def fake() -> FakeHost:
    made = FakeHost()
    made.add_image("debian-12")
    host = Host(ports=made.ports)
    host.apply(host.plan(parse_site(SITE)))
    return made


@contextmanager
def watching(fake: FakeHost) -> Iterator[Watched]:
    watched = Watched(fake)
    keeper = Host(ports=fake.ports).keeper(watched.tell)

    def run() -> None:
        watched.repaired = keeper.run()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield watched
    finally:
        keeper.stop()
        thread.join(40)
        assert not thread.is_alive()


def test_what_was_wrong_before_is_put_back_at_once(fake: FakeHost) -> None:
    fake.links.set_port_vlans(Watched(fake).tap(), port_vlans(200))
    with watching(fake) as watched:
        watched.until(lambda: watched.vlans() == port_vlans(100))
    assert watched.repaired == 1
    assert watched.said == [f"web: put back: port {watched.tap()} PVID 200 -> PVID 100"]


@pytest.mark.parametrize("wrong", [port_vlans(200), NO_VLAN, port_vlans(100, [7])])
def test_what_others_change_is_put_back_each_time(fake: FakeHost, wrong: PortVlans) -> None:
    with watching(fake) as watched:
        for count in (1, 2):
            fake.links.set_port_vlans(watched.tap("db"), wrong)
            watched.until(lambda count=count: len(watched.said) == count)
            assert watched.vlans("db") == port_vlans(100)
    assert watched.repaired == 2
    assert all(text.startswith("db: put back") for text in watched.said)


def test_an_apply_that_moves_a_guest_is_not_undone(fake: FakeHost) -> None:
    host = Host(ports=fake.ports)
    with watching(fake) as watched:
        host.apply(host.plan(parse_site(SITE.replace("vlan: 100", "vlan: 101"))))
        assert watched.vlans() == port_vlans(101)
        fake.links.set_port_vlans(watched.tap(), port_vlans(7))
        watched.until(lambda: watched.vlans() == port_vlans(101))
    assert watched.said == [f"web: put back: port {watched.tap()} PVID 7 -> PVID 101"]


def test_a_guest_that_another_vmhost_works_on_waits(fake: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keep, "AGAIN", 0.02)
    with watching(fake) as watched:
        with fake.locks.guests([fake.domain("web").uuid]):
            fake.links.set_port_vlans(watched.tap(), port_vlans(200))
            fake.links.set_port_vlans(watched.tap("db"), port_vlans(200))
            watched.until(lambda: watched.vlans("db") == port_vlans(100))
            assert watched.vlans() == port_vlans(200)
        watched.until(lambda: watched.vlans() == port_vlans(100))
    assert watched.repaired == 2


def test_what_only_a_person_can_mend_is_told_once(fake: FakeHost) -> None:
    with watching(fake) as watched:
        fake.world.links["br0"].vlan_filtering = False
        fake.links.changed()
        watched.until(lambda: bool(watched.said))
        fake.links.changed()
        fake.links.changed()
    told = "br0: it does not filter VLANs any more: its guests are not kept apart"
    assert watched.said == [f"{told}; ip link set br0 type bridge vlan_filtering 1"]


def test_a_port_on_another_bridge_is_told_and_stays(fake: FakeHost) -> None:
    domain = fake.world.domains[fake.domain("web").uuid]
    with watching(fake) as watched:
        domain.live_xml = domain.live_xml.replace('<source bridge="br0"', '<source bridge="br1"')
        fake.links.changed()
        watched.until(lambda: bool(watched.said))
        fake.links.changed()
    told = f"web: port {watched.tap()} is on bridge br1, should be on br0; it stays there"
    assert watched.said == [f"{told}; ip link set {watched.tap()} master br0"]


def test_guests_that_start_meanwhile_are_watched_too(fake: FakeHost) -> None:
    fake.hypervisor.power_off(fake.domain("web").uuid)
    fake.hook.remove()
    with watching(fake) as watched:
        fake.hypervisor.start(fake.domain("web").uuid)
        watched.until(lambda: watched.vlans() == port_vlans(100))
    assert watched.said == [f"web: put back: port {watched.tap()} no VLAN -> PVID 100"]


def test_an_access_port_that_is_gone_is_made_anew(fake: FakeHost) -> None:
    reach = "reach: port, reach_address: 10.1.0.250"
    host = Host(ports=fake.ports)
    host.apply(host.plan(parse_site(SITE.replace("reach: agent", reach))))
    access = AccessPort("br0", 100, "10.1.0.250/24")
    with watching(fake) as watched:
        fake.links.close_access(access, alias="vmhost:shop")
        watched.until(lambda: fake.links.namespaces() == ("vmhost-br0-100",))
        watched.until(lambda: bool(watched.said))
    assert watched.said == ["br0: put back: access port of this host into VLAN 100 with 10.1.0.250/24"]
