"""The host of ``vmhost tui --demo``: what is kept of it is what these calls make, and no screen of it is empty."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from vmhost.model.services import Health, KeptLook
from vmhost.ops.host import Host
from vmhost.ops.sites import parse_site
from vmhost.testing import FakeHost, guests, savefile
from vmhost.testing.demo import CAPTURED, day_host, demo_host

SITE = """\
apiVersion: vmhost/v1
name: shop
networks:
  lan: {bridge: br0, subnet: 10.20.0.0/24}
defaults: {image: debian-12, memory: 2G, disks: [{size: 20G}], nics: [{network: lan}]}
guests: {web-01: {}, web-02: {}, db-01: {}, db-02: {}, cache-01: {}, build-01: {}}
services:
  nginx:
    version: "1.22"
    env: prod
    guests: [web-01, web-02]
    packages: [nginx=1.22.1-9]
    unit: nginx
    ports: [80]
    files: [{path: /etc/nginx/conf.d/shop.conf, content: "server { listen 80; }\\n", after: reload}]
  postgres:
    version: "15"
    env: prod
    guests: [db-01, db-02]
    packages: [postgresql=15+248]
    unit: postgresql
    ports: [5432]
    files: [{path: /etc/postgresql/15/main/conf.d/shop.conf, content: "shared_buffers = 2GB\\n"}]
  redis:
    version: "7.0"
    env: prod
    guests: [cache-01]
    packages: ["redis-server=5:7.0.15-1"]
    unit: redis-server
    ports: [6379]
  node-exporter:
    version: "1.5"
    guests: [build-01]
    packages: [prometheus-node-exporter=1.5.0-1+b6]
    unit: prometheus-node-exporter
    ports: [9100]
"""
HOUR = 3600.0
FAILED = "cache-01"
EDITED = "db-02"
EVERY, LOOKS, BAD = 30.0, 40, 24
"""Seconds between two looks of the watch, how many of them are kept, how many of the last were bad where it failed."""


def day() -> FakeHost:
    """Two days of work on the demonstration's host."""
    fake = demo_host(speed=0)
    host = Host(ports=fake.ports)
    site = parse_site(SITE)
    for name in (guest.name for guest in site.guests):  # one after another, so that it is the same every time
        host.services.deploy(host.services.plan_deploy(site, guests=[name]))
    for name in ("web-01", "db-01", "db-02", "cache-01"):
        host.backups.run([name])
    fake.advance(24 * HOUR)
    host.apply(host.snapshots.plan_create("web-02", "before-upgrade"))
    fake.advance(20 * HOUR)
    for name in ("web-01", "db-01", "db-01"):
        host.backups.run([name])
        fake.advance(HOUR)
    host.backups.verify("db-01")
    host.backups.drills.run(["db-01"])
    _be_served(fake)
    for job in fake.world.jobs.values():
        job.record = replace(job.record, pid=4242, user="ann")
        job.lines = [re.sub(r"done in [0-9.]+ s$", "done in 0.01 s", line) for line in job.lines]
    return fake


def _be_served(fake: FakeHost) -> None:
    """Let the services have run for a while, watched; one failed, and of one a file was edited."""
    now = fake.world.now
    for row in Host(ports=fake.ports).services.list(look=False):
        domain = fake.domain(row.guest)
        with fake.machine.at_work(changing=True) as world:
            system = guests.system_of(world, world.domains[domain.uuid])
            assert system is not None
            unit = system.land.units[row.unit]
            said = (f"ready on port {unit.ports[0]}", *(f"checkpoint {turn} complete" for turn in range(1, 8)))
            system.land.journal = [_entry(now - 540 + 60 * turn, row.unit, text) for turn, text in enumerate(said)]
            if row.guest == FAILED:
                system.land.journal.append(_entry(now - BAD * EVERY, row.unit, "killed by signal 9"))
                unit.active, unit.failed = False, True
            if row.guest == EDITED:
                system.files["/etc/postgresql/15/main/conf.d/shop.conf"] += b"max_connections = 400\n"
        bad = f"{row.unit} is failed (failed, signal)" if row.guest == FAILED else ""
        for probe, text in (("unit", bad), (f"port-{unit.ports[0]}", bad and "connection refused")):
            fake.history.looked([_look(turn, now, domain.uuid, row.service, probe, text) for turn in range(LOOKS)])


def _look(turn: int, now: float, uuid: str, service: str, probe: str, bad: str) -> KeptLook:
    """Return one of the last looks at a probe; ``bad`` is what the last of them say where it failed."""
    at, good = now - (LOOKS - turn) * EVERY, not bad or turn < LOOKS - BAD
    return KeptLook(uuid, service, probe, at, good, 0.002 + 0.0007 * (turn * turn % 9), "" if good else bad)


def _entry(at: float, unit: str, text: str) -> str:
    """Return a line of ``journalctl --output=json``."""
    fields = {"__REALTIME_TIMESTAMP": str(int(at * 1e6)), "__CURSOR": f"{unit}-{at:.0f}", "MESSAGE": text}
    return json.dumps({**fields, "SYSLOG_IDENTIFIER": unit.removesuffix(".service")})


def test_what_is_kept_is_what_two_days_of_work_make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SUDO_USER", "ann")
    made = tmp_path / "day.json"
    savefile.store(made, day().world)
    if os.environ.get("VMHOST_UPDATE_GOLDEN") == "1":
        CAPTURED.write_bytes(made.read_bytes())
    assert json.loads(CAPTURED.read_text(encoding="utf-8")) == json.loads(made.read_text(encoding="utf-8"))


@pytest.fixture
def host() -> Host:
    return Host(ports=day_host(speed=0).ports)


def test_one_service_has_failed_one_was_edited_and_the_rest_is_well(host: Host) -> None:
    rows = {row.guest: row for row in host.services.list()}
    assert {name for name, row in rows.items() if row.health is not Health.UP} == {FAILED}
    assert {name for name, row in rows.items() if row.drift} == {FAILED, EDITED}
    assert not any(row.error for row in rows.values())
    past = {(one.guest, one.probe): one for one in host.services.history()}
    assert len(past) == 2 * len(rows) == 12
    assert all(one.looks == LOOKS and bool(one.bad) == (guest == FAILED) for (guest, _), one in past.items())
    assert {line.guest for line in host.services.logs(["postgres"])} == {"db-01", "db-02"}
    host.services.act(["redis"], "restart")
    assert next(row for row in host.services.list(["redis"])).health is Health.UP


def test_there_are_points_snapshots_a_drill_and_jobs(host: Host) -> None:
    points = host.backups.list()
    assert {point.name for point in points} == {"web-01", "db-01", "db-02", "cache-01"}
    assert any(point.verified for point in points)
    assert not all(point.verified for point in points)
    assert [(row.guest, row.name) for row in host.snapshots.list("web-02")] == [("web-02", "before-upgrade")]
    (drill,) = host.ledger.history.drills()
    assert not drill.failed
    kinds = {job.kind.split()[0] for job in host.jobs()}
    assert kinds >= {"apply", "backup", "drill", "service", "snapshot"}
