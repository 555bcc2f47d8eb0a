"""Starting and stopping: in an orderly way, many at once, never by surprise."""

from __future__ import annotations

import pytest

from tests.engine.scenes import OTHER, WEB, site
from vmhost.model.errors import ApplyError, Cancelled, GuestError, NotFound, PartlyDone, Protected, Refused
from vmhost.ops.host import Host
from vmhost.ops.power import raise_failures
from vmhost.testing import FakeHost, FaultPlan, FaultyPorts


def fake_host() -> tuple[FakeHost, Host]:
    fake = FakeHost(seed=6)
    fake.add_image("debian-12")
    host = Host(ports=fake.ports)
    host.apply(host.plan(site(WEB, OTHER)))
    return fake, host


def states(host: Host) -> dict[str, str]:
    return {row.name: row.state for row in host.guests()}


def test_stop_and_start_several_guests() -> None:
    _, host = fake_host()
    raise_failures(host.power(["web-01", "db-01"], "stop"))
    assert states(host) == {"web-01": "shut off", "db-01": "shut off"}
    raise_failures(host.power(["web-01", "db-01", "web-01"], "start"))
    assert states(host) == {"web-01": "running", "db-01": "running"}
    assert [result.text for result in host.power(["web-01"], "start")] == ["it runs already"]


def test_a_guest_that_does_not_obey_runs_on_and_is_never_powered_off() -> None:
    fake, host = fake_host()
    fake.behave("web-01", obeys=False)
    results = host.power(["web-01", "db-01"], "stop", timeout=30)
    with pytest.raises(PartlyDone):
        raise_failures(results)
    assert states(host) == {"web-01": "running", "db-01": "shut off"}
    error = results[0].error
    assert "still running 30 s after it was asked" in str(error)
    assert isinstance(error, ApplyError | GuestError)


def test_a_fault_of_ours_stops_no_other_guest() -> None:
    fake, _ = fake_host()
    plan = FaultPlan(0, error=lambda _: KeyError("name"), only=lambda _, method: method == "begin")
    results = Host(ports=FaultyPorts(fake.ports, plan).ports).power(["web-01", "db-01"], "stop")
    (failed,) = [result for result in results if result.error is not None]
    assert str(failed.error) == f"{failed.name}: unexpected failure: KeyError: 'name'"
    assert sorted(states(Host(ports=fake.ports)).values()) == ["running", "shut off"]


def test_restart_takes_what_was_redefined() -> None:
    fake, host = fake_host()
    fake.edit("web-01", lambda xml: xml.replace("524288", "655360"))
    assert "655360" not in fake.domain("web-01").live_xml
    raise_failures(host.power(["web-01"], "restart"))
    assert "655360" in fake.domain("web-01").live_xml


def test_power_off_is_its_own_word() -> None:
    fake, host = fake_host()
    fake.behave("web-01", obeys=False)
    raise_failures(host.power(["web-01"], "power-off"))
    assert states(host)["web-01"] == "shut off"


def test_a_protected_guest_is_shut_down_but_not_powered_off() -> None:
    fake = FakeHost(seed=6)
    fake.add_image("debian-12")
    host = Host(ports=fake.ports)
    host.apply(host.plan(site(f"{WEB}    protect: true\n", OTHER)))
    with pytest.raises(Protected, match="it is protected"):
        host.power(["db-01", "web-01"], "power-off")
    assert states(host) == {"web-01": "running", "db-01": "running"}
    raise_failures(host.power(["web-01"], "stop"))
    assert [result.text for result in host.power(["web-01"], "power-off")] == ["it does not run"]


def test_a_protected_guest_keeps_its_saved_memory() -> None:
    fake = FakeHost(seed=6)
    fake.add_image("debian-12")
    host = Host(ports=fake.ports)
    host.apply(host.plan(site(f"{WEB}    protect: true\n", OTHER)))
    fake.save_memory("web-01")
    with pytest.raises(Protected, match="it is protected"):
        host.power(["web-01"], "start", discard_saved=True)
    assert fake.domain("web-01").managed_save
    raise_failures(host.power(["web-01"], "start"))
    assert states(host)["web-01"] == "running"


def test_autostart_on_and_off() -> None:
    fake, host = fake_host()
    raise_failures(host.power(["web-01"], "autostart"))
    assert fake.domain("web-01").autostart
    assert host.power(["web-01"], "autostart")[0].text == "autostart is on already"
    raise_failures(host.power(["web-01"], "no-autostart"))
    assert not fake.domain("web-01").autostart


def test_saved_memory_is_restored_unless_it_is_discarded() -> None:
    fake, host = fake_host()
    fake.save_memory("web-01")
    raise_failures(host.power(["web-01"], "start", discard_saved=True))
    assert not fake.domain("web-01").managed_save
    assert states(host)["web-01"] == "running"


def test_an_unknown_name_stops_all_before_anything_is_done() -> None:
    fake, host = fake_host()
    before = fake.state()
    with pytest.raises(NotFound):
        host.power(["web-01", "nobody"], "stop")
    assert fake.state() == before


def test_a_foreign_guest_is_refused() -> None:
    fake, host = fake_host()
    fake.edit("web-01", lambda xml: xml.replace("vmhost.dev", "elsewhere.example"))
    with pytest.raises(Refused, match="foreign"):
        host.power(["web-01"], "stop")


def test_cancelled_while_it_waits() -> None:
    fake, host = fake_host()
    fake.behave("web-01", obeys=False)
    results = host.power(["web-01"], "stop", cancelled=lambda: True)
    assert isinstance(results[0].error, Cancelled)
    assert states(host)["web-01"] == "running"
