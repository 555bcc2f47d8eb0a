"""Drills on a fake host: what is booted, what is told of it, and that nothing stays, whatever fails or is killed."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from copy import deepcopy

import pytest

from tests.engine.scenes import WEB, site, strict
from tests.engine.test_sweep import faults
from vmhost.backupports import Tell
from vmhost.engine.observe import observe
from vmhost.model.drills import SeeDrill
from vmhost.model.errors import ApplyError, DrillFailed, NoCapacity, NotFound, Refused, VmhostError
from vmhost.model.events import Event, StepDone, StepFailed, StepStarted
from vmhost.model.points import Damage, PointRef
from vmhost.model.steps import DefineDomain
from vmhost.ops.apply import recover_host
from vmhost.ops.drills import raise_failures
from vmhost.ops.host import Host
from vmhost.ops.sites import parse_site
from vmhost.testing import FakeHost, FaultPlan, FaultyPorts, SimulatedKill
from vmhost.testing.faults import driver_error
from vmhost.testing.repository import FakeRepositories

USER = """
apiVersion: vmhost/v1
name: shop
networks: {nat: {type: user}}
guests:
""" + WEB.replace("lan", "nat")
SILENT = WEB + "    ready: {by: none}\n"


def made(guests: str = WEB) -> FakeHost:
    """A host whose guests have a point each."""
    fake = FakeHost(seed=5)
    fake.add_image("debian-12")
    host = Host(ports=fake.ports)
    host.apply(host.plan(site(guests)))
    fake.machine.advance(60)  # by then it is up, whoever waited for it
    for result in host.backups.run():
        assert result.error is None
    return fake


@pytest.fixture
def fake() -> FakeHost:
    return made()


@pytest.fixture
def host(fake: FakeHost) -> Host:
    return Host(ports=fake.ports)


def test_a_point_comes_back_and_nothing_stays(host: Host, fake: FakeHost) -> None:
    before = strict(fake.state())
    events: list[Event] = []
    (result,) = host.backups.drills.run(["web-01"], on_event=events.append)
    assert result.error is None
    assert result.drill is not None
    assert result.drill.failed == ""
    assert 0 < result.drill.rto < 60
    assert any("login:" in line for line in result.drill.console)
    assert host.backups.drills.history() == (result.drill,)
    assert strict(fake.state()) == before
    assert any(isinstance(event, StepDone) and "SSH with its own host key" in event.why for event in events)
    raise_failures([result])


def test_the_plan_changes_nothing_of_the_guest_and_says_what_it_is(host: Host, fake: FakeHost) -> None:
    proposal = host.backups.drills.plan("web-01")
    text = str(proposal)
    assert "network lan that leads nowhere" in text
    assert "PRIVATE" not in text
    mine = fake.domain("web-01").uuid
    assert not any(getattr(item.do, "uuid", "") == mine for item in (*proposal.plan.steps, *proposal.plan.after))
    # whatever is made has an end of its own
    undone = [item.undo for item in proposal.plan.steps]
    assert {str(undo) for undo in undone} == {str(item.do) for item in proposal.plan.after[1:]}


def test_while_it_runs_it_is_neither_a_foreign_guest_nor_one_of_the_site(host: Host, fake: FakeHost) -> None:
    seen: list[tuple[str, tuple[str, ...], str, bool]] = []

    def look(event: Event) -> None:
        if isinstance(event, StepStarted) and "wait for SSH" in event.why:
            rows = {row.name: row for row in host.guests()}
            (name,) = rows.keys() - {"web-01"}
            seen.append((name, rows[name].flags, rows[name].site, rows[name].autostart))
            assert "web-01" in str(host.backups.nightly.status(objective=1e9))
            assert name not in str(host.backups.nightly.status(objective=1e9))
            assert host.plan(site(WEB)).empty

    host.backups.drills.run(["web-01"], on_event=look)
    ((name, flags, owner, autostart),) = seen
    assert name.startswith("vmhost-drill-")
    assert (flags, owner, autostart) == (("drill",), "", False)


def test_a_point_that_does_not_boot_fails_with_the_guests_words(host: Host, fake: FakeHost) -> None:
    before = strict(fake.state())
    (stored,) = fake.world.repositories[next(iter(fake.world.repositories))].points.values()
    stored.systems.clear()
    (result,) = host.backups.drills.run(["web-01"])
    assert result.drill is not None
    assert "not ready after" in result.drill.failed
    assert result.drill.console == ("No bootable device.",)
    assert result.drill.rto == -1
    with pytest.raises(DrillFailed, match="not ready") as caught:
        raise_failures([result])
    assert caught.value.details == ("No bootable device.",)
    assert strict(fake.state()) == before


def test_a_damaged_point_is_not_booted(host: Host, fake: FakeHost) -> None:
    (stored,) = fake.world.repositories[next(iter(fake.world.repositories))].points.values()
    stored.files["root.qcow2"] += "x"
    (result,) = host.backups.drills.run(["web-01"])
    with pytest.raises(DrillFailed, match="damaged"):
        raise_failures([result])
    assert result.drill is not None
    assert "damaged" in result.drill.failed
    (result,) = host.backups.drills.run(["web-01"])
    assert isinstance(result.error, NotFound), "by now it is known to be damaged"


def test_words_on_the_console_are_enough() -> None:
    words = made(SILENT + "    backup: {drill: {says: 'login:'}}\n")
    (result,) = Host(ports=words.ports).backups.drills.run(["web-01"])
    assert result.error is None
    deaf = made(SILENT)
    with pytest.raises(Refused, match="by what to see"):
        Host(ports=deaf.ports).backups.drills.plan("web-01")


def test_words_and_ssh_have_one_time_together() -> None:
    fake = made(WEB + "    ready: {timeout: 60}\n    backup: {drill: {says: 'login:'}}\n")
    (stored,) = fake.world.repositories[next(iter(fake.world.repositories))].points.values()
    for system in stored.systems.values():
        system.addresses.clear()  # it says so, but is not to be reached
    times: list[float] = []

    def look(event: Event) -> None:
        if isinstance(event, StepStarted | StepFailed) and "wait until" in event.why:
            times.append(fake.ports.clock.monotonic())

    (result,) = Host(ports=fake.ports).backups.drills.run(["web-01"], on_event=look)
    assert "not ready after 60 s" in str(result.error)
    begun, ended = times
    assert 59 < ended - begun < 61


def test_it_takes_no_memory_that_others_were_promised(host: Host, fake: FakeHost) -> None:
    fake.world.memory = 1 << 30
    with pytest.raises(NoCapacity, match="promised to nobody"):
        host.backups.drills.plan("web-01")


def test_the_longest_ago_comes_first_within_the_budget() -> None:
    fake = made(WEB + WEB.replace("web-01", "db-01"))
    host = Host(ports=fake.ports)
    host.backups.drills.run(["db-01"])
    results = host.backups.drills.oldest_first(budget=3600)
    assert [result.name for result in results] == ["web-01", "db-01"]
    took = results[0].drill.seconds if results[0].drill else 0
    short = host.backups.drills.oldest_first(budget=took * 1.5)
    assert [bool(result.drill) for result in short] == [True, False]
    assert "no time" in short[1].skipped


def test_the_budget_foresees_the_reading_back_and_what_a_failed_drill_took(
    host: Host, fake: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify = FakeRepositories.verify

    def slowly(repositories: FakeRepositories, ref: PointRef, tell: Tell, known: Collection[str]) -> tuple[Damage, ...]:
        fake.advance(1000)
        return verify(repositories, ref, tell, known)

    monkeypatch.setattr(FakeRepositories, "verify", slowly)
    (result,) = host.backups.drills.run(["web-01"])
    assert result.drill is not None
    assert result.drill.rto < 1000 < result.drill.seconds < 1000 + result.drill.rto + 60
    (refused,) = host.backups.drills.oldest_first(budget=900)
    with pytest.raises(Refused, match=r"took 10\d\d s in all, more than the whole budget of 900 s") as caught:
        raise_failures([refused])
    assert caught.value.hint == "vmhost backup drill web-01"
    for stored in next(iter(fake.world.repositories.values())).points.values():
        stored.systems.clear()
    (failed,) = host.backups.drills.oldest_first(budget=2000)
    assert failed.drill is not None
    assert failed.drill.failed
    assert failed.drill.seconds > result.drill.seconds
    between = (result.drill.seconds + failed.drill.seconds) / 2
    assert host.backups.drills.oldest_first(budget=between)[0].error, "it went well once in that time, and then failed"


def test_which_point(host: Host, fake: FakeHost) -> None:
    host.apply(host.backups.plan("web-01"))
    first, second = (point.id for point in host.backups.list("web-01"))

    def drilled(**how: str) -> str:
        (result,) = host.backups.drills.run(["web-01"], **how)  # type: ignore[arg-type]
        assert result.drill is not None
        return result.drill.point

    assert (drilled(), drilled(pick="oldest"), drilled(point=first)) == (second, first, first)
    assert {drilled(pick="random") for _ in range(12)} == {first, second}


@pytest.mark.parametrize("boots", [True, False])
def test_what_the_guest_did_is_known_also_where_its_end_fails(fake: FakeHost, boots: bool) -> None:
    def cannot(port: str, called: str) -> bool:
        return (port, called) == ("hypervisor", "power_off")

    if not boots:
        (stored,) = fake.world.repositories[next(iter(fake.world.repositories))].points.values()
        stored.systems.clear()
    before = strict(fake.state())
    plan = FaultPlan(0, error=driver_error, lasting=True, only=cannot)
    host = Host(ports=FaultyPorts(fake.ports, plan).ports)
    (result,) = host.backups.drills.run(["web-01"])
    assert result.drill is not None
    assert (result.drill.failed == "", result.drill.rto > 0) == (boots, boots)
    assert ("not ready after" in result.drill.failed) != boots
    assert host.backups.drills.history() == (result.drill,)
    with pytest.raises(ApplyError, match=r"hypervisor\.power_off"):
        raise_failures([result])
    recover_host(fake.ports)
    assert strict(fake.state()) == before


def test_the_plan_is_made_after_the_point_was_read_back(fake: FakeHost) -> None:
    """That takes hours, in which the host changes."""
    counted = FaultyPorts(fake.ports)
    (result,) = Host(ports=counted.ports).backups.drills.run(["web-01"])
    assert result.error is None
    calls = [call.method for call in counted.calls if call.port == "repositories"]
    assert "read" in calls[calls.index("verify") : calls.index("expose")]


def test_no_port_of_a_guest_that_is_off_is_taken() -> None:
    fake = FakeHost(seed=5)
    fake.add_image("debian-12")
    host = Host(ports=fake.ports)
    host.apply(host.plan(parse_site(USER)))
    assert host.backups.run()[0].error is None
    fake.hypervisor.power_off(fake.domain("web-01").uuid)
    (nic,) = observe(fake.ports).domain("web-01").metadata.identity.nics  # type: ignore[union-attr]
    proposal = host.backups.drills.plan("web-01")
    (see,) = [item.do for item in proposal.plan.after if isinstance(item.do, SeeDrill)]
    (drilled,) = see.ready.identity.nics
    assert nic.ssh_port
    assert drilled.ssh_port not in (0, nic.ssh_port)
    (define,) = [item.do for item in proposal.plan.steps if isinstance(item.do, DefineDomain)]
    assert f"restrict=on,hostfwd=tcp:127.0.0.1:{drilled.ssh_port}-:22" in define.xml


def test_doctor_takes_no_drill_for_an_intruder(host: Host) -> None:
    seen: list[set[str]] = []

    def look(event: Event) -> None:
        if isinstance(event, StepStarted) and "wait for SSH" in event.why:
            seen.append({finding.id for finding in host.doctor(only="network")})

    host.backups.drills.run(["web-01"], on_event=look)
    (found,) = seen
    assert "bridge" in found
    assert "foreign-tap" not in found


def test_a_host_that_cannot_drill_says_nothing_about_the_point(fake: FakeHost) -> None:
    plan = FaultPlan(0, error=driver_error, only=lambda port, called: (port, called) == ("hypervisor", "start"))
    host = Host(ports=FaultyPorts(fake.ports, plan).ports)
    (result,) = host.backups.drills.run(["web-01"])
    with pytest.raises(ApplyError, match="start it"):
        raise_failures([result])
    assert host.backups.drills.history() == ()


def test_a_fault_of_ours_costs_one_guest_its_drill(caplog: pytest.LogCaptureFixture) -> None:
    fake = made(WEB + WEB.replace("web-01", "db-01"))
    plan = FaultPlan(0, error=lambda _: KeyError("name"), only=lambda _, method: method == "verify")
    results = Host(ports=FaultyPorts(fake.ports, plan).ports).backups.drills.run(["web-01", "db-01"])
    assert [str(result.error or "") for result in results] == ["web-01: unexpected failure: KeyError: 'name'", ""]
    assert results[1].drill is not None
    assert "in through" in caplog.text, "where it came from is in the log"


def test_a_guest_that_cannot_be_ended_keeps_its_disks_and_its_network(fake: FakeHost) -> None:
    def cannot(port: str, called: str) -> bool:
        return (port, called) == ("hypervisor", "power_off")

    before, started = strict(fake.state()), []

    def look(event: Event) -> None:
        if isinstance(event, StepDone) and event.why.endswith("start it"):
            started.append(event)

    plan = FaultPlan(0, error=driver_error, lasting=True, only=cannot)
    victim = Host(ports=FaultyPorts(fake.ports, plan).ports)
    proposal = victim.backups.drills.plan("web-01")
    with pytest.raises(ApplyError) as failed:
        victim.apply(proposal, on_event=look, cancelled=lambda: bool(started))
    told = "\n".join(failed.value.leftovers)
    assert "what the drill reads and writes stays" in told
    assert "the access to vd" in told
    assert fake.world.exposed, "QEMU reads there"
    assert fake.world.namespaces
    recover_host(fake.ports)
    assert strict(fake.state()) == before


def test_a_guest_of_the_site_is_planned_while_its_drill_runs() -> None:
    fake = made(WEB.replace("web-01", "db-01"))  # before vmhost-drill-... in the alphabet
    host, seen = Host(ports=fake.ports), []

    def look(event: Event) -> None:
        if isinstance(event, StepStarted) and "wait for SSH" in event.why:
            seen.append(host.plan(site(WEB.replace("web-01", "db-01"))).empty)

    (result,) = host.backups.drills.run(["db-01"], on_event=look)
    assert (result.error, seen) == (None, [True])


def test_whatever_fails_or_is_killed_nothing_stays() -> None:
    begun = made().world

    def again() -> FakeHost:
        return FakeHost(seed=6, world=deepcopy(begun))

    calls = FaultyPorts(again().ports)
    before, host = strict(again().state()), Host(ports=calls.ports)
    host.apply(host.backups.drills.plan("web-01"))
    for plan in faults(calls.calls):
        fake = again()
        faulty = FaultyPorts(fake.ports, plan)
        victim = Host(ports=faulty.ports)
        with suppress(VmhostError, SimulatedKill):
            victim.apply(victim.backups.drills.plan("web-01"))
        fake.die()
        recover_host(fake.ports)
        where = f"call {plan.at} of {len(calls.calls)} {plan.place}, {'fault' if plan.error else 'kill'}"
        assert strict(fake.state()) == before, where
