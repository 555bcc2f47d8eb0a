"""An operation that has to wait for a guest or for the host: others go on, the person is told, and may give up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from vmhost.model.errors import Cancelled, Conflict
from vmhost.model.events import Event, Notice
from vmhost.model.permit import Permit
from vmhost.model.spec import Site
from vmhost.ops.host import Host
from vmhost.ops.sites import parse_site
from vmhost.testing import FakeHost
from vmhost.testing.world import Link

SITE = """
apiVersion: vmhost/v1
name: {name}
networks: {{lan: {{{network}}}}}
guests:
  {name}-1: {{image: debian-12, memory: {memory}, disks: [{{size: 4G}}], nics: [{{network: lan}}]}}
"""


def site(name: str, memory: str = "512M", network: str = "") -> Site:
    subnet = {"one": 1, "two": 2}[name]
    bridge = f"bridge: br{subnet}, subnet: 10.0.{subnet}.0/24"
    return parse_site(SITE.format(name=name, memory=memory, network=network or bridge))


@pytest.fixture
def fake() -> FakeHost:
    host = FakeHost()
    host.add_image("debian-12")
    for number in (1, 2):
        host.add_link(Link(f"br{number}", kind="bridge", addresses=[f"10.0.{number}.254/24"]))
    return host


@contextmanager
def busy(fake: FakeHost, name: str) -> Iterator[threading.Event]:
    """Somebody else works on a guest until the event is set, or the block ends."""
    ready, release = threading.Event(), threading.Event()

    def work() -> None:
        with fake.locks.guests([fake.domain(name).uuid]):
            ready.set()
            release.wait(50)

    thread = threading.Thread(target=work)
    thread.start()
    assert ready.wait(30)
    try:
        yield release
    finally:
        release.set()
        thread.join(30)


class Waiter:
    """An apply in a thread of its own; ``waits`` is set when it says that it waits."""

    def __init__(self, host: Host, wish: Site) -> None:
        self.waits, self.gives_up = threading.Event(), threading.Event()
        self.said: list[str] = []
        self.error: BaseException | None = None
        proposal = host.plan(wish, Permit(stop=True))
        self._thread = threading.Thread(target=self._apply, args=(host, proposal))
        self._thread.start()

    def _apply(self, host: Host, proposal: object) -> None:
        try:
            host.apply(proposal, on_event=self._hear, cancelled=self.gives_up.is_set)  # type: ignore[arg-type]
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    def _hear(self, event: Event) -> None:
        if isinstance(event, Notice):
            self.said.append(f"{event.subject}: {event.text}")
            self.waits.set()

    def end(self) -> BaseException | None:
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.error


def test_who_waits_for_a_guest_keeps_nobody_from_the_host(fake: FakeHost) -> None:
    host = Host(ports=fake.ports)
    host.apply(host.plan(site("one")))
    with busy(fake, "one-1") as release:
        waiter = Waiter(host, site("one", memory="1G"))
        assert waiter.waits.wait(30)
        host.apply(host.plan(site("two")))  # another site, which needs the host's lock
        release.set()
        assert waiter.end() is None
    assert waiter.said[0].startswith("apply one: lock of guest ")
    assert "is held by another thread; waiting" in waiter.said[0]
    assert host.drift(site("one", memory="1G")) == ()


def test_who_gives_up_waiting_changes_nothing(fake: FakeHost) -> None:
    host = Host(ports=fake.ports)
    host.apply(host.plan(site("one")))
    before = fake.state()
    with busy(fake, "one-1"):
        waiter = Waiter(host, site("one", memory="1G"))
        assert waiter.waits.wait(30)
        waiter.gives_up.set()
        error = waiter.end()
    assert isinstance(error, Cancelled)
    assert "nothing was done" in str(error)
    assert fake.state() == before
    assert fake.locks.held() == ()
    assert next(job.state for job in host.jobs()) == "cancelled"


def test_what_changed_while_one_waited_is_seen(fake: FakeHost) -> None:
    host = Host(ports=fake.ports)
    host.apply(host.plan(site("one")))
    with busy(fake, "one-1") as release:
        waiter = Waiter(host, site("one", memory="1G"))
        assert waiter.waits.wait(30)
        fake.hypervisor.power_off(fake.domain("one-1").uuid)
        release.set()
        error = waiter.end()
    assert isinstance(error, Conflict)
    assert "the host changed since the plan was shown; nothing was done" in str(error)


def test_a_pool_that_another_site_made_meanwhile_is_no_change(fake: FakeHost) -> None:
    host = Host(ports=fake.ports)
    first, second = host.plan(site("one")), host.plan(site("two"))
    assert "two-1" not in str(first)
    host.apply(first)
    outcome = host.apply(second)
    assert not any("new storage pool" in why for why in outcome.done)
    assert host.plan(site("one")).empty
    assert host.plan(site("two")).empty


def test_a_forwarded_port_that_another_took_meanwhile_is_refused_before_anything_is_made(fake: FakeHost) -> None:
    host = Host(ports=fake.ports)
    first, second = (host.plan(site(name, network="type: user")) for name in ("one", "two"))
    host.apply(first)
    before = fake.state()
    with pytest.raises(Conflict, match="port 22200 of the host was taken meanwhile by one-1"):
        host.apply(second)
    assert fake.state() == before
    host.apply(host.plan(site("two", network="type: user")))
    assert host.plan(site("two", network="type: user")).empty


def test_the_person_is_told_what_is_new(fake: FakeHost) -> None:
    host = Host(ports=fake.ports)
    first, second = host.plan(site("one")), host.plan(site("one"))
    host.apply(first)
    with pytest.raises(Conflict, match=r"nothing was done \(now there is nothing to do\)"):
        host.apply(second)
    stale = host.plan(site("one", memory="1G"), Permit(stop=True))
    fake.hypervisor.power_off(fake.domain("one-1").uuid)
    with pytest.raises(Conflict, match=r"\(now also: one-1: start\)|\(no longer: one-1: shut down\)"):
        host.apply(stale)
