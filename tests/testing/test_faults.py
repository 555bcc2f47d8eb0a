"""Faults on demand: they strike where they are told, before or after the effect; a dead process does nothing more."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress

import pytest

from vmhost.model.errors import Absent, AlreadyThere, DriverError
from vmhost.ports import Ports
from vmhost.testing import FakeHost, FaultPlan, FaultyPorts, SimulatedKill
from vmhost.testing.faults import Call, driver_error, sweep


def work(ports: Ports) -> None:
    """Do something on several ports."""
    writer = ports.journals.begin("op")
    try:
        with ports.locks.host():
            writer.append({"step": 1})
            ports.hypervisor.create_pool("p", "/p")
            ports.clock.now()
            ports.links.create_bridge("br9", alias="x", mtu=1500, address="")
            writer.append({"step": 2})
    except DriverError:
        with suppress(DriverError):
            ports.links.delete_bridge("br9", alias="x")
        with suppress(DriverError):
            ports.hypervisor.delete_pool("p")
        writer.close(done=True)
        raise
    writer.close(done=True)


NAMES = [
    "journals.begin",
    "locks.host",
    "journal.append",
    "hypervisor.create_pool",
    "links.create_bridge",
    "journal.append",
    "journal.close",
]


def test_without_a_plan_it_only_counts() -> None:
    host = FakeHost()
    faulty = FaultyPorts(host.ports)
    work(faulty.ports)
    assert [f"{call.port}.{call.method}" for call in faulty.calls] == NAMES
    assert [call.number for call in faulty.calls] == list(range(len(NAMES)))
    assert faulty.struck() is None
    assert set(host.state()["pools"]) == {"p"}
    assert str(faulty.calls[3]) == "3: hypervisor.create_pool('p', '/p')"


def test_secrets_are_not_in_the_record() -> None:
    host = FakeHost()
    faulty = FaultyPorts(host.ports)
    secret = "correct horse battery staple " * 9
    with suppress(DriverError):
        faulty.ports.hypervisor.upload_volume("p", "v", secret.encode())
    faulty.ports.seeds.make({"user-data": secret.encode()})
    assert [call.arguments for call in faulty.calls] == [f"'p', 'v', <{len(secret)} bytes>", "<dict>"]
    faulty.ports.links.links()
    with suppress(Absent):
        faulty.ports.hypervisor.domain(secret)
    assert all(len(call.arguments) < 60 for call in faulty.calls)


@pytest.mark.parametrize("number", range(len(NAMES)))
def test_before_there_was_no_effect_and_after_there_was(number: int) -> None:
    def until(place: str) -> dict[str, object]:
        host = FakeHost()
        plan = FaultPlan(at=number, place=place, kill=None)  # type: ignore[arg-type]
        faulty = FaultyPorts(host.ports, plan)
        with pytest.raises(SimulatedKill):
            work(faulty.ports)
        host.die()
        struck = faulty.struck()
        assert struck is not None
        assert f"{struck.port}.{struck.method}" == NAMES[number]
        assert len(faulty.calls) == number + 1
        return host.state()

    same = NAMES[number] == "locks.host"
    assert (until("before") == until("after")) is same


def test_after_death_nothing_has_an_effect() -> None:
    host = FakeHost()
    faulty = FaultyPorts(host.ports, FaultPlan(at=4, place="after"))
    with pytest.raises(SimulatedKill):
        work(faulty.ports)
    before = host.state()
    for act in (
        lambda: faulty.ports.hypervisor.delete_pool("p"),
        lambda: faulty.ports.clock.now(),
        lambda: faulty.ports.history.jobs(),
    ):
        with pytest.raises(SimulatedKill):
            act()
    assert host.state() == before
    assert faulty.dead


def test_an_error_is_raised_and_life_goes_on() -> None:
    host = FakeHost()
    start = host.state()
    faulty = FaultyPorts(host.ports, FaultPlan(at=4, place="after", error=driver_error))
    with pytest.raises(DriverError, match=r"injected fault at links\.create_bridge"):
        work(faulty.ports)
    assert host.state() == start
    assert not faulty.dead


def test_a_chosen_error() -> None:
    def theirs(call: Call) -> AlreadyThere:
        return AlreadyThere("there", subject=call.method)

    faulty = FaultyPorts(FakeHost().ports, FaultPlan(at=0, error=theirs))
    with pytest.raises(AlreadyThere) as caught:
        faulty.ports.images.list()
    assert caught.value.subject == "list"


def test_a_lasting_fault_stays_with_its_port() -> None:
    host = FakeHost()
    faulty = FaultyPorts(host.ports, FaultPlan(at=1, error=driver_error, lasting=True))
    faulty.ports.hypervisor.domains()
    for act in (faulty.ports.hypervisor.domains, faulty.ports.hypervisor.pools):
        with pytest.raises(DriverError):
            act()
    faulty.ports.links.links()


def test_only_what_is_chosen_is_counted() -> None:
    def changing(port: str, method: str) -> bool:
        return port == "hypervisor" and method.startswith("create")

    faulty = FaultyPorts(FakeHost().ports, FaultPlan(only=changing))
    work(faulty.ports)
    assert [call.method for call in faulty.calls] == ["create_pool"]


def test_what_is_returned_is_counted_too() -> None:
    host = FakeHost()
    host.journals.begin("op").append({"a": 1})
    host.die()
    faulty = FaultyPorts(host.ports)
    (journal,) = faulty.ports.journals.claim_open()
    journal.writer.append({"b": 2})
    faulty.ports.signals.open(faulty.ports.hypervisor, "x", "").wait(0)
    names = [f"{call.port}.{call.method}" for call in faulty.calls]
    assert names == ["journals.claim_open", "journal.append", "signals.open", "wakeups.wait"]


def test_a_real_kill() -> None:
    pid = os.fork()
    if pid == 0:
        plan = FaultPlan(at=2, kill=lambda: os.kill(os.getpid(), signal.SIGKILL))
        with suppress(BaseException):
            work(FaultyPorts(FakeHost().ports, plan).ports)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_a_sweep_goes_everywhere() -> None:
    assert list(sweep(2)) == [(0, "before"), (0, "after"), (1, "before"), (1, "after")]
    assert list(sweep(2, ("before",))) == [(0, "before"), (1, "before")]


def test_the_layout_and_plain_attributes_pass() -> None:
    host = FakeHost()
    ports = FaultyPorts(host.ports).ports
    assert ports.layout is host.layout
    assert ports.locks.timeout == host.locks.timeout  # type: ignore[attr-defined]


def test_a_kill_is_no_exception_that_anybody_catches() -> None:
    def careless(act: Callable[[], object]) -> str:
        try:
            act()
        except Exception:  # noqa: BLE001 - that is the point
            return "survived"
        return "fine"

    faulty = FaultyPorts(FakeHost().ports, FaultPlan(at=0))
    with pytest.raises(SimulatedKill):
        careless(faulty.ports.images.list)
