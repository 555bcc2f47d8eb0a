"""The main job runs on the fake host from end to end, with its refusals and its mishaps."""

from __future__ import annotations

import pytest

from vmhost.model.errors import AlreadyThere, ApplyError, GuestError
from vmhost.model.observed import DomainState
from vmhost.model.permit import Permit
from vmhost.ops.host import Host
from vmhost.testing import FakeHost, FaultPlan, FaultyPorts, SimulatedKill, builders


@pytest.fixture
def fake() -> FakeHost:
    host = FakeHost()
    host.add_image()
    return host


def test_from_a_site_to_guests_and_back_to_nothing(fake: FakeHost) -> None:
    start = fake.state()
    site = builders.site(builders.guest("web-01"), builders.guest("web-02", firmware="uefi", autostart=True))
    host = Host(ports=fake.ports)
    outcome = host.apply(host.plan(site))
    assert dict(outcome.verdicts) == {"web-01": "done", "web-02": "done"}
    assert outcome.total_seconds == pytest.approx(30.0, abs=2.0), "seconds of the fake host's clock"
    assert host.drift(site) == ()
    assert host.plan(site).empty
    assert fake.domain("web-02").autostart
    fake.edit("web-01", lambda xml: xml.replace('Memory unit="KiB">524288', 'Memory unit="KiB">262144'))
    assert [item.guest for item in host.drift(site)] == ["web-01"]
    host.apply(host.plan_delete(["web-01", "web-02"], Permit(power_off=True, disks=True)))
    assert fake.state() == start


def test_a_guest_that_never_comes_up_is_reported_in_fake_time(fake: FakeHost) -> None:
    fake.behave("web-01", boots=False)
    host = Host(ports=fake.ports)
    with pytest.raises(GuestError, match="not ready after 600 s"):
        host.apply(host.plan(builders.site(builders.guest("web-01"))))
    assert fake.domain("web-01").state is DomainState.RUNNING


@pytest.mark.timeout(30)
def test_a_guest_that_does_not_obey_is_not_powered_off(fake: FakeHost) -> None:
    host = Host(ports=fake.ports)
    host.apply(host.plan(builders.site(builders.guest("web-01"))))
    fake.behave("web-01", obeys=False)
    (result,) = host.power(["web-01"], "stop", timeout=60)
    assert result.error is not None
    assert "still running 60 s after" in str(result.error)
    assert fake.domain("web-01").state is DomainState.RUNNING
    fake.behave("web-01", shutdown_seconds=20)
    (result,) = host.power(["web-01"], "stop", timeout=60)
    assert result.error is None
    assert fake.domain("web-01").state is DomainState.SHUTOFF


def test_a_kill_in_the_middle_is_recovered(fake: FakeHost) -> None:
    start = fake.state()
    site = builders.site(builders.guest("web-01"))

    def at_the_start(port: str, method: str) -> bool:
        return (port, method) == ("hypervisor", "start")

    faulty = FaultyPorts(fake.ports, FaultPlan(at=0, place="after", only=at_the_start))
    with pytest.raises(SimulatedKill):
        Host(ports=faulty.ports).apply(Host(ports=faulty.ports).plan(site))
    assert fake.locks.held() == (), "the kernel releases what the dead held"
    fake.die()
    assert fake.domain("web-01").state is DomainState.RUNNING
    host = Host(ports=fake.ports)
    assert host.interrupted()
    host.recover()
    assert fake.state() == start


def test_what_was_there_before_us_is_not_undone(fake: FakeHost) -> None:
    site = builders.site(builders.guest("web-01"))

    def create(port: str, method: str) -> bool:
        return method == "create_pool"

    fault = FaultPlan(at=0, place="after", only=create, error=lambda call: AlreadyThere("there", subject=call.port))
    host = Host(ports=FaultyPorts(fake.ports, fault).ports)
    with pytest.raises(ApplyError):
        host.apply(host.plan(site))
    assert set(fake.state()["pools"]) == {"vmhost"}
