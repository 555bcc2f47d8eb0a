"""A night over several guests: one that fails stops nobody, and the report says what became of each."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.engine.scenes import OTHER, WEB, site
from vmhost.backupports import Tell
from vmhost.cli import main
from vmhost.model.errors import ApplyError, Cancelled, Conflict, PartlyDone, Refused, UsageError
from vmhost.model.nightsteps import CRON, MARK, SERVICE, TIMER, UNITS, StartTimer, StopTimer
from vmhost.model.outcome import JobRecord
from vmhost.model.points import Damage, PointRef
from vmhost.model.retention import Keep
from vmhost.model.snapshots import SNAPSHOTS, Snapshots
from vmhost.ops.host import Host
from vmhost.ops.jobs import described
from vmhost.ops.nightly import raise_failures, write_metrics
from vmhost.ops.nightwakes import Waking, timer_texts
from vmhost.ops.protectionview import view_protection
from vmhost.ops.wards import NIGHT
from vmhost.plan.protection import Measure, protection
from vmhost.render.nightunits import cron_text, units
from vmhost.render.snapshots import snapshots_xml
from vmhost.testing import FakeHost, FaultPlan, FaultyPorts
from vmhost.testing.faults import driver_error
from vmhost.testing.hypervisor import FakeHypervisor

KEEP = Keep(last=2)


@pytest.fixture
def fake() -> FakeHost:
    """Two guests that run, and one that is shut off."""
    made = FakeHost(seed=7)
    made.add_image("debian-12")
    host = Host(ports=made.ports)
    host.apply(host.plan(site(OTHER, WEB, WEB.replace("web-01", "off-01") + "    state: stopped\n")))
    return made


def failing(fake: FakeHost, method: str, nth: int) -> Host:
    """Return the host whose ``nth`` call of a method fails."""
    plan = FaultPlan(nth, error=driver_error, only=lambda _, called: called == method)
    return Host(ports=FaultyPorts(fake.ports, plan).ports)


def test_every_guest_gets_a_verified_point_and_old_ones_go(fake: FakeHost) -> None:
    host = Host(ports=fake.ports)
    for night in range(4):
        told = host.backups.nightly.run(keep=KEEP)
        raise_failures(told)
        assert [(guest.name, guest.verified) for guest in told.guests] == [
            ("db-01", True),
            ("off-01", True),
            ("web-01", True),
        ]
        assert str(told.guests[0]).startswith("db-01: full" if not night else "db-01: incremental")
        fake.advance(86_400)
    off = [point for point in host.backups.list("off-01") if point.kind == "full"]
    assert len(off) == 2, "full ones go once nothing rests on them"
    assert host.backups.nightly.status(objective=2 * 86_400)[0].problem == ""


def test_each_site_says_what_it_keeps_and_one_that_says_nothing_keeps_all(fake: FakeHost) -> None:
    host = Host(ports=fake.ports)
    says = WEB.replace("image: debian-12", "image: debian-12\n    backup: {keep: {last: 5}}")
    host.apply(host.plan(site(OTHER, says, WEB.replace("web-01", "off-01") + "    state: stopped\n")))
    for _ in range(9):
        host.backups.run(full=True)
        fake.advance(3600)
    raise_failures(host.backups.nightly.run())
    left = {name: len(host.backups.list(name)) for name in ("db-01", "off-01", "web-01")}
    assert left == {"db-01": 10, "off-01": 10, "web-01": 5}


def test_a_site_keeps_all_points_of_the_last_hours(fake: FakeHost) -> None:
    host = Host(ports=fake.ports)
    says = WEB.replace("image: debian-12", "image: debian-12\n    backup: {keep: {within: 150m}}")
    host.apply(host.plan(site(OTHER, says, WEB.replace("web-01", "off-01") + "    state: stopped\n")))
    for _ in range(5):
        host.backups.run(["web-01"], full=True)
        fake.advance(3600)
    raise_failures(host.backups.nightly.run(["web-01"]))
    kept = [point.kind for point in host.backups.list("web-01")]
    assert kept == ["full", "full", "incremental"], "of five hours before, those of the last two and a half"


@pytest.mark.parametrize(("method", "step"), [("begin_backup", "backup"), ("verify", "verify"), ("publish", "backup")])
def test_one_that_fails_stops_nobody(fake: FakeHost, method: str, step: str) -> None:
    told = failing(fake, method, 0).backups.nightly.run(keep=KEEP)
    assert [(guest.name, guest.failed) for guest in told.guests] == [("db-01", step), ("off-01", ""), ("web-01", "")]
    with pytest.raises(PartlyDone, match="1 of 3 guests failed") as caught:
        raise_failures(told)
    assert set(caught.value.failures) == {"db-01"}
    assert "injected fault" in str(told.guests[0])
    again = Host(ports=fake.ports).backups.nightly.run(keep=KEEP)
    assert again.failures == (), "the next night heals"


@pytest.mark.parametrize(
    ("method", "step"), [("points", "look"), ("tracking", "backup"), ("verify", "verify"), ("delete", "prune")]
)
def test_a_fault_of_ours_stops_nobody_either(
    fake: FakeHost, method: str, step: str, caplog: pytest.LogCaptureFixture
) -> None:
    host = Host(ports=fake.ports)
    for _ in range(2):
        raise_failures(host.backups.nightly.run(keep=KEEP))
    only = FaultPlan(0, error=lambda _: KeyError("name"), only=lambda _, called: called == method)
    told = Host(ports=FaultyPorts(fake.ports, only).ports).backups.nightly.run(["off-01", "web-01"], keep=Keep(last=1))
    assert [(guest.name, guest.failed) for guest in told.guests] == [("off-01", step), ("web-01", "")]
    assert "KeyError: 'name'" in told.guests[0].error
    assert "in through" in caplog.text, "where it came from is in the log"
    assert host.backups.nightly.run(keep=KEEP).failures == (), "the next night heals"


def test_a_second_night_does_not_begin_beside_the_first(fake: FakeHost) -> None:
    fake.history.start(JobRecord("20200101T000000-first", NIGHT, "db-01", "running", 1.0, pid=1))
    with pytest.raises(Conflict, match="another night") as caught:
        Host(ports=fake.ports).backups.nightly.run(keep=KEEP)
    assert caught.value.hint == "vmhost job show 20200101T000000-first"


@pytest.mark.parametrize(
    ("moment", "ends"),
    [
        ("db-01: full point", [("db-01", "", True)]),
        ("verify off-01", [("db-01", "", True), ("off-01", "verify", True)]),
        ("off-01: begin point", [("db-01", "", True), ("off-01", "backup", False)]),
    ],
)
def test_a_night_that_is_cancelled_reports_what_was_done(
    fake: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, ends: list[tuple[str, str, bool]]
) -> None:
    host, told = Host(ports=fake.ports), list[str]()
    verify = host.ports.repositories.verify

    def verifying(ref: PointRef, tell: Tell, known: Collection[str]) -> tuple[Damage, ...]:
        told.append(f"verify {next(row.name for row in host.guests() if row.uuid == ref.guest)}")
        return verify(ref, tell, known)

    monkeypatch.setattr(host.ports.repositories, "verify", verifying)

    def asked() -> bool:
        return any(line.startswith(moment) for line in told)

    night = host.backups.nightly.run(
        keep=KEEP, on_event=lambda event: told.append(described(event)[0]), cancelled=asked
    )
    assert [(guest.name, guest.failed, bool(guest.point)) for guest in night.guests] == ends
    with pytest.raises(Cancelled, match="1 of 3 guests are done"):
        raise_failures(night)
    assert next(job for job in host.jobs() if job.kind == NIGHT).state == "cancelled"
    assert len(host.backups.list()) == sum(point for _, _, point in ends)
    write_metrics(night, tmp_path / "vmhost.prom")
    assert 'vmhost_nightly_success{guest="db-01"} 1.0' in (tmp_path / "vmhost.prom").read_text()


def test_old_points_stay_when_the_night_is_cancelled_before_they_go(
    fake: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, noted = Host(ports=fake.ports), list[str]()
    for _ in range(3):
        host.backups.run(["db-01"], full=True)
    note = host.ports.repositories.note

    def noting(ref: PointRef, **values: bool | str) -> None:
        note(ref, **values)
        noted.append(ref.id)

    monkeypatch.setattr(host.ports.repositories, "note", noting)
    night = host.backups.nightly.run(["db-01"], keep=Keep(last=1), cancelled=lambda: bool(noted))
    assert [(guest.failed, guest.verified, guest.pruned) for guest in night.guests] == [("prune", True, 0)]
    assert len(host.backups.list("db-01")) == 4
    assert night.cancelled


def test_where_nothing_can_be_written_is_said_before_the_night(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["-c", "fake:demo", "nightly", "run", "web-01", "--textfile"]
    assert main.run([*words, str(tmp_path / "nowhere" / "vmhost.prom")]) == 2
    said = capsys.readouterr()
    assert "cannot be written" in said.err
    assert "point" not in said.out + said.err
    assert main.run([*words, str(tmp_path)]) == 2
    assert main.run([*words, str(tmp_path / "vmhost.prom")]) == 0


def test_the_unprotected_come_first(fake: FakeHost) -> None:
    host = Host(ports=fake.ports)
    host.backups.run(["db-01"])
    fake.advance(30 * 3600)
    raise_failures(host.backups.nightly.run(["off-01"]))
    found = host.backups.nightly.status(objective=26 * 3600.0)
    told = [("web-01", "it has no point"), ("db-01", "its newest point is 30 h old, 26 h are the most"), ("off-01", "")]
    assert [(one.name, one.problem) for one in found] == told
    fake.hypervisor.set_metadata(fake.domain("off-01").uuid, snapshots_xml(Snapshots(frozen="then")), SNAPSHOTS)
    fake.hypervisor.set_metadata(fake.domain("db-01").uuid, snapshots_xml(Snapshots(frozen="then")), SNAPSHOTS)
    found = host.backups.nightly.status(objective=26 * 3600.0)
    frozen = ("db-01", "its file systems are FROZEN since then: vmhost snapshot thaw db-01")
    assert [(one.name, one.problem) for one in found] == [frozen, told[0], told[2]], "who is off is not frozen"
    assert [guest.name for guest in view_protection(host).guests] == ["db-01", "web-01", "off-01"]
    assert protection([], [], Measure(0, 1, "")) == []


@pytest.mark.parametrize("how", ["by hand", "timer", "cron", "another's", "half"])
def test_guests_that_nothing_wakes_are_told(booted: FakeHost, how: str) -> None:
    host = Host(ports=booted.ports)
    if how == "by hand":
        host.backups.nightly.run()
    elif how in ("timer", "half"):
        host.apply(host.backups.nightly.plan_install(Waking(["/usr/bin/vmhost"], "22:00")))
        booted.world.timer = booted.world.timer_boots = how == "timer"
    elif how == "cron":
        host.apply(host.backups.nightly.plan_install(Waking(["/usr/bin/vmhost"], "22:00", cron=True)))
    else:
        booted.world.timer_files[f"{UNITS}/{TIMER}"] = "[Timer]\n"

    def told() -> set[tuple[bool, str]]:
        host.backups.run()
        host.backups.verify()
        return {(one.woken, one.problem) for one in host.backups.nightly.status(objective=26 * 3600.0)}

    bad = (False, "nothing wakes its night's work: vmhost nightly install")
    assert told() == ({bad} if how == "half" else {(True, "")})
    booted.advance(27 * 3600)
    assert told() == ({bad} if how in ("half", "by hand") else {(True, "")}), "and the night by hand was long ago"


def test_what_cannot_be_understood_is_a_problem(fake: FakeHost) -> None:
    host = Host(ports=fake.ports)
    for _ in range(2):
        raise_failures(host.backups.nightly.run())
    point = host.backups.list("web-01")[-1]
    fake.world.repositories[point.ref.repository].points[f"{point.ref.guest}/{point.id}"].text = ""
    first, *others = host.backups.nightly.status(objective=26 * 3600.0)
    assert (first.name, first.problem) == (
        "web-01",
        f"none of its points can go: {point.id}/manifest.json: is missing",
    )
    assert [one.problem for one in others] == ["", ""]


def test_the_outcome_is_what_prometheus_reads(fake: FakeHost, tmp_path: Path) -> None:
    told = failing(fake, "begin_backup", 0).backups.nightly.run(keep=KEEP)
    file = tmp_path / "vmhost.prom"
    write_metrics(told, file)
    families = {family.name: family for family in text_string_to_metric_families(file.read_text())}
    success = {sample.labels["guest"]: sample.value for sample in families["vmhost_nightly_success"].samples}
    assert success == {"db-01": 0.0, "off-01": 1.0, "web-01": 1.0}
    assert families["vmhost_nightly_end_timestamp_seconds"].samples[0].value == fake.world.now // 1
    assert [path.name for path in tmp_path.iterdir()] == ["vmhost.prom"], "written all at once"
    with pytest.raises(UsageError):
        write_metrics(told, tmp_path / "nowhere" / "vmhost.prom")


ARGV = ["/opt/a b/vmhost", "nightly", "run", "--keep", "daily=7"]


def test_times_are_checked() -> None:
    (timer,) = [text for name, text in timer_texts(ARGV, ["6:05"]).items() if name.endswith(TIMER)]
    assert "OnCalendar=*-*-* 06:05:00\nPersistent=true" in timer
    assert "OnCalendar=Mon..Fri 22:30\nOnCalendar=hourly\n" in units(ARGV, ["Mon..Fri 22:30", "hourly"])[TIMER]
    for bad in ("sometimes", "25:00", "22:00\nExecStart=/bin/sh"):
        with pytest.raises(UsageError):
            timer_texts(ARGV, [bad])
    assert "OnFailure" not in units(ARGV, ["22:00"])[SERVICE]


def test_cron_has_a_line_of_its_own() -> None:
    assert cron_text(ARGV, "22:05") == f"{MARK}\n5 22 * * * root /opt/a\\ b/vmhost nightly run --keep daily=7\n"
    assert "50\\%" in cron_text([*ARGV, "50%"], "0:00"), "a bare % would end the line"
    with pytest.raises(UsageError):
        cron_text(ARGV, "Mon 22:00")
    with pytest.raises(UsageError, match="no line can hold this"):
        cron_text([*ARGV, "a\nb"], "22:05")
    with pytest.raises(UsageError, match="no command for failures"):
        timer_texts(ARGV, ["22:00"], "alarm", cron=True)


def test_units_say_what_is_kept_only_if_they_are_told_to(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["nightly", "units", "--cron"]) == 0
    assert capsys.readouterr().out.endswith("nightly run --at 22:00\n\n")
    assert main.run(["nightly", "units", "--cron", "--keep", "last=3"]) == 0
    assert capsys.readouterr().out.endswith("nightly run --at 22:00 --keep last=3\n\n")


def test_the_night_does_what_is_due_and_drills() -> None:
    fake = FakeHost(seed=8)
    fake.add_image("debian-12")
    host = Host(ports=fake.ports)
    wish = "    backup: {every: 12h, full: 3d, drill: {every: 2d}}\n"
    host.apply(host.plan(site(WEB + wish)))
    told = []
    for _ in range(8):
        night = host.backups.nightly.run()
        raise_failures(night)
        (guest,) = night.guests
        told.append((guest.kind, bool(guest.drilled)))
        fake.advance(8 * 3600)
    nothing, more = ("", False), ("incremental", False)
    assert told == [("full", True), nothing, more, nothing, more, nothing, ("incremental", True), nothing]
    assert "no point is due" in str(guest)
    assert host.backups.nightly.run(["web-01"]).guests[0].kind == "incremental", "who is named has a turn in any case"


def test_a_drill_that_fails_is_told_and_is_no_protection() -> None:
    fake = FakeHost(seed=8)
    fake.add_image("debian-12")
    host = Host(ports=fake.ports)
    host.apply(host.plan(site(WEB + "    ready: {timeout: 60}\n    backup: {drill: {every: 2d}}\n")))
    host.backups.nightly.run()
    fake.advance(2 * 86_400)
    for _, volume in fake.world.volumes():
        if volume.system:
            volume.system.host_key = "ssh-ed25519 AAAAOTHER"
    night = host.backups.nightly.run()
    with pytest.raises(PartlyDone, match="1 of 1"):
        raise_failures(night)
    (guest,) = night.guests
    assert (guest.failed, guest.verified) == ("drill", True)
    assert "another host key" in guest.error
    (one,) = host.backups.nightly.status(objective=86_400)
    assert one.problem.startswith("its last drill failed: ")
    assert one.drilled < night.started


def test_a_clock_that_was_ahead_once_costs_one_drill() -> None:
    fake = FakeHost(seed=8)
    fake.add_image("debian-12")
    host = Host(ports=fake.ports)
    host.apply(host.plan(site(WEB + "    backup: {every: 12h, drill: {every: 7d}}\n")))
    host.backups.nightly.run()
    fake.history.drilled(replace(fake.history.drills()[-1], started="2026-01-05T00:00:00Z"))
    told = []
    for _ in range(4):
        fake.advance(3600)
        told.append(bool(host.backups.nightly.run().guests[0].drilled))
    assert told == [True, False, False, False]


def test_points_do_not_wait_for_what_became_of_drills(fake: FakeHost, caplog: pytest.LogCaptureFixture) -> None:
    host = failing(fake, "drills", 0)
    host.apply(host.plan(site(WEB + "    backup: {drill: {every: 7d}}\n")))
    told = host.backups.nightly.run(["web-01"])
    raise_failures(told)
    assert (told.guests[0].verified, told.guests[0].drilled) == (True, "")
    assert "nobody knows of the last ones" in caplog.text
    assert host.backups.nightly.run().guests[-1].drilled, "the next night has it"


def test_a_guest_whose_points_cannot_be_looked_at_stops_nobody(fake: FakeHost) -> None:
    Host(ports=fake.ports).backups.run()
    told = failing(fake, "points", 0).backups.nightly.run()
    assert [(guest.name, guest.failed) for guest in told.guests] == [("db-01", "look"), ("off-01", ""), ("web-01", "")]
    assert "db-01: look FAILED: injected fault" in str(told.guests[0])


def test_each_guest_has_its_turn_by_its_own_calendar() -> None:
    fake = FakeHost(seed=8)
    fake.add_image("debian-12")
    host = Host(ports=fake.ports)
    wish = '    backup: {schedule: {points: "00/6:00", full: "*-*-03 03:00"}}\n'
    host.apply(host.plan(site(WEB + wish, OTHER)))
    told: dict[str, list[str]] = {"web-01": [], "db-01": []}
    for _ in range(20):  # from 2026-01-01 00:02 on, every three hours
        night = host.backups.nightly.run(at="22:00")
        raise_failures(night)
        for guest in night.guests:
            told[guest.name].append(guest.kind[:1] or "-")
        fake.advance(3 * 3600)
    assert "".join(told["web-01"]) == "f-i-i-i-i-i-i-i-ifi-"
    assert "".join(told["db-01"]) == "f-------i-------i---"


def test_what_a_machine_missed_is_done_once_when_it_is_back() -> None:
    fake = FakeHost(seed=8)
    fake.add_image("debian-12")
    host = Host(ports=fake.ports)
    host.apply(host.plan(site(WEB + '    backup: {schedule: {points: hourly, full: "Sun 03:00"}}\n')))
    host.backups.nightly.run()
    fake.advance(9.7 * 86_400)
    assert [host.backups.nightly.run().guests[0].kind for _ in range(2)] == ["full", ""]


@pytest.fixture
def booted() -> FakeHost:
    """A host that systemd runs, with two guests, one of which has a schedule."""
    fake = FakeHost(seed=8)
    fake.add_image("debian-12")
    fake.world.systemd = True
    host = Host(ports=fake.ports)
    host.apply(host.plan(site(WEB + '    backup: {schedule: {points: "Mon..Fri 12:00"}}\n', OTHER)))
    return fake


def test_the_night_is_installed_by_a_plan_and_found_installed(booted: FakeHost) -> None:
    host, waking = Host(ports=booted.ports), Waking(["/usr/bin/vmhost"], "22:00")
    proposal = host.backups.nightly.plan_install(waking)
    assert "note: /etc/systemd/system/vmhost-nightly.timer: +OnCalendar=Mon..Fri 12:00" in str(proposal)
    assert "note: vmhost-nightly.timer: what is due begins within a minute" in str(proposal)
    assert booted.world.timer_files == {}, "a plan changes nothing"
    host.apply(proposal)
    assert booted.world.timer
    assert '"nightly" "run" "--at" "22:00"' in booted.world.timer_files[f"{UNITS}/{SERVICE}"]
    again = host.backups.nightly.plan_install(waking)
    assert again.empty
    assert str(again) == "nothing to do"
    later = host.backups.nightly.plan_install(replace(waking, at="23:00"))
    assert [item.why for item in later.plan.steps] == [
        f"nightly: write {UNITS}/{SERVICE} anew",
        f"nightly: write {UNITS}/{TIMER} anew",
    ]
    host.apply(later)
    host.apply(host.backups.nightly.plan_remove())
    assert (booted.world.timer_files, booted.world.timer) == ({}, False)
    assert host.backups.nightly.plan_remove().empty


def test_units_of_another_are_not_touched(booted: FakeHost) -> None:
    host, path = Host(ports=booted.ports), f"{UNITS}/{TIMER}"
    service = f"{UNITS}/{SERVICE}"
    booted.world.timer_files[service] = "[Service]\n"
    with pytest.raises(Conflict, match="not vmhost's") as caught:
        host.backups.nightly.plan_install(Waking(["/usr/bin/vmhost"], "22:00"))
    assert caught.value.hint == f"mv {service} {service}.old"
    booted.world.timer_files = {path: "[Timer]\nOnCalendar=daily\n[Install]\n"}
    with pytest.raises(Conflict, match="not vmhost's") as caught:
        host.backups.nightly.plan_install(Waking(["/usr/bin/vmhost"], "22:00"))
    assert caught.value.hint == f"systemctl disable --now {TIMER} && mv {path} {path}.old"
    assert host.backups.nightly.plan_remove().plan.notes[0].subject == path
    assert host.backups.nightly.plan_remove().empty


def test_what_came_between_plan_and_apply_is_not_overwritten(booted: FakeHost) -> None:
    host = Host(ports=booted.ports)
    proposal = host.backups.nightly.plan_install(Waking(["/usr/bin/vmhost"], "22:00"))
    booted.world.timer_files[f"{UNITS}/{SERVICE}"] = "[Service]\n"
    with pytest.raises(Conflict):
        host.apply(proposal)
    assert booted.world.timer_files == {f"{UNITS}/{SERVICE}": "[Service]\n"}


def test_what_another_put_in_place_of_ours_is_told_when_an_install_is_undone(booted: FakeHost) -> None:
    path = f"{UNITS}/{SERVICE}"

    def taken(port: str, called: str) -> bool:
        if (port, called) != ("timers", "start"):
            return False
        booted.world.timer_files[path] = "[Service]\n"
        return True

    host = Host(ports=FaultyPorts(booted.ports, FaultPlan(0, error=driver_error, only=taken)).ports)
    with pytest.raises(ApplyError) as caught:
        host.apply(host.backups.nightly.plan_install(Waking(["/usr/bin/vmhost"], "22:00")))
    assert path in str(caught.value.leftovers)
    assert booted.world.timer_files == {path: "[Service]\n"}


def test_from_cron_to_systemd_only_one_of_them_wakes(booted: FakeHost) -> None:
    host, waking = Host(ports=booted.ports), Waking(["/usr/bin/vmhost"], "22:00")
    host.apply(host.backups.nightly.plan_install(replace(waking, cron=True)))
    assert list(booted.world.timer_files) == [CRON]
    host.apply(host.backups.nightly.plan_install(waking))
    assert sorted(booted.world.timer_files) == [f"{UNITS}/{SERVICE}", f"{UNITS}/{TIMER}"]
    host.apply(host.backups.nightly.plan_install(replace(waking, cron=True)))
    assert (list(booted.world.timer_files), booted.world.timer) == ([CRON], False)


@pytest.mark.parametrize(("boots", "runs"), [(True, False), (False, True)])
def test_a_timer_that_is_half_on_is_stopped_and_taken_away(booted: FakeHost, boots: bool, runs: bool) -> None:
    host, waking = Host(ports=booted.ports), Waking(["/usr/bin/vmhost"], "22:00")
    host.apply(host.backups.nightly.plan_install(waking))
    booted.world.timer_boots, booted.world.timer = boots, runs
    (start,) = host.backups.nightly.plan_install(waking).plan.steps
    assert start.why == f"nightly: start {TIMER}, {'now' if boots else 'at every boot'}"
    assert (start.do, start.undo) == (
        StartTimer(TIMER, boot=not boots, now=not runs),
        StopTimer(TIMER, boot=not boots, now=not runs),
    )
    before = booted.state()
    plan = FaultPlan(
        2, error=driver_error, only=lambda port, called: (port, called) in (("timers", "stop"), ("timers", "drop"))
    )
    with pytest.raises(ApplyError):
        Host(ports=FaultyPorts(booted.ports, plan).ports).apply(host.backups.nightly.plan_remove())
    assert booted.state()["timers"] == before["timers"], "as it was"
    host.apply(host.backups.nightly.plan_remove())
    assert (booted.world.timer_files, booted.world.timer, booted.world.timer_boots) == ({}, False, False)


def test_the_units_name_the_repository_and_the_hypervisor_wherever_they_are_started(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.run(["-c", "test:///x", "nightly", "units", "--cron", "--repository", "points"]) == 0
    assert capsys.readouterr().out.endswith(f" -c test:///x nightly run --at 22:00 --repository {tmp_path}/points\n\n")
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", "test:///y")
    assert main.run(["nightly", "units"]) == 0
    assert '" "-c" "test:///y" "nightly" "run"' in capsys.readouterr().out
    monkeypatch.setenv("VMHOST_BACKUPS_DIR", "/srv/points")
    monkeypatch.setenv("VMHOST_STATE_DIR", "")
    assert main.run(["nightly", "units"]) == 0
    assert '"/usr/bin/env" "VMHOST_BACKUPS_DIR=/srv/points" "/' in capsys.readouterr().out


def test_a_user_s_own_hypervisor_has_nothing_to_install_or_remove(
    booted: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeHypervisor, "daemon", lambda hypervisor: replace(hypervisor.host(), privileged=False))
    host = Host(ports=booted.ports)
    for propose in (host.backups.nightly.plan_remove, lambda: host.backups.nightly.plan_install(Waking([], "22:00"))):
        with pytest.raises(Refused, match="only the system's hypervisor"):
            propose()


@pytest.mark.parametrize("at", ["25:00", "sometimes", "*-02-30"])
def test_nonsense_is_refused_before_anything_is_written(booted: FakeHost, at: str) -> None:
    host = Host(ports=booted.ports)
    with pytest.raises(UsageError, match=r"no calendar event|never comes"):
        host.backups.nightly.plan_install(Waking(["/usr/bin/vmhost"], at))
    assert main.run(["-c", "fake:demo", "nightly", "run", "--at", at]) == 2
