"""Three nights over four guests by a calendar of seconds: what fails is told, and stops none of the others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backup.test_drill import left
from tests.guest.conftest import DEMO, GUESTS, Booted, vmhost
from tests.guest.protected import Hands, hands_in, inside, rows
from tests.labfixture import InLab

pytestmark = [pytest.mark.guest, DEMO, pytest.mark.full, pytest.mark.timeout(2400)]

POINTS = "schedule: {points: '*:*:0/5'}"
DRILLED = "schedule: {points: '*:*:0/5', drill: '*:*:0/5'}, keep: {last: 2}"
SERVICE = """
services:
  shop:
    guests: [web-01]
    unit:
      name: shop
      content: |
        [Service]
        ExecStartPre=/usr/bin/test -e /srv/stock
        ExecStart=/usr/bin/python3 -m http.server --directory /srv 8080
        [Install]
        WantedBy=multi-user.target
    files: [{path: /srv/stock, content: "full\\n", after: nothing}]
    probes: {page: {http: {port: 8080, path: /}}}
"""
OTHERS = f"""
apiVersion: vmhost/v1
name: nights
defaults:
  image: debian-12
  memory: 256M
  disks: [{{size: 4G}}]
  state: stopped
  ready: {{by: none}}
  backup: {{{POINTS}}}
guests:
  off-01: {{}}
  lost-01: {{}}
"""


@pytest.fixture
def hands(booted: Booted, tmp_path: Path) -> Iterator[Hands]:
    """Four guests: with a service, with an agent that hangs, powered off, without the file of its disk."""
    text = booted.site.read_text()
    for name, what in zip(("web-01", "db-01"), (DRILLED, POINTS), strict=True):
        text = text.replace(f"  {name}:\n", f"  {name}:\n    backup: {{{what}}}\n")
    demo, others = tmp_path / "demo.yaml", tmp_path / "nights.yaml"
    demo.write_text(text + SERVICE)
    others.write_text(OTHERS)
    for site in (demo, others):
        vmhost("apply", str(site), "--yes", timeout=300)
    vmhost("service", "deploy", str(demo), "--yes", timeout=300)
    try:
        disk_of("lost-01").unlink()
        with hands_in("db-01") as found:
            found.do("SIGSTOP")
            yield found
            found.do("SIGCONT")
    finally:
        vmhost("service", "delete", "shop", "--yes", check=False, timeout=120)
        vmhost("guest", "delete", "off-01", "lost-01", "--disks", "--yes", check=False, timeout=120)
        vmhost("apply", str(booted.site), "--yes", check=False, timeout=300)


def disk_of(guest: str) -> Path:
    """The file of a guest's disk."""
    shown = json.loads(vmhost("guest", "show", guest, "-o", "json").stdout)
    (found,) = Path("/var/lib/vmhost/disks").glob(f"{shown['data']['row']['uuid']}-root.qcow2")
    return found


def test_three_nights(hands: Hands, tmp_path: Path, lab: InLab) -> None:
    del hands
    where, metrics = ("--repository", str(tmp_path / "repository")), tmp_path / "night.prom"

    def night() -> dict[str, dict[str, object]]:
        """Do what is due, and return what became of each guest."""
        before = left(lab, disk_of("web-01"))
        words = ("nightly", "run", *where, "--textfile", str(metrics), "-o", "json")
        done = vmhost(*words, check=False, timeout=1200)
        assert done.code == 11, done.stderr.decode()
        assert left(lab, disk_of("web-01")) == before, "a drill leaves nothing behind"
        found = {guest["name"]: guest for guest in json.loads(done.stdout)["data"]["guests"]}
        assert set(found) == {*GUESTS, "off-01", "lost-01"}
        assert found["lost-01"]["failed"] == "backup"
        assert [found[name]["verified"] for name in ("web-01", "db-01", "off-01")] == [True] * 3
        assert [found[name]["failed"] for name in ("db-01", "off-01")] == [""] * 2
        assert 'vmhost_nightly_success{guest="lost-01"} 0.0' in metrics.read_text()
        assert 'vmhost_nightly_success{guest="db-01"} 1.0' in metrics.read_text()
        return found

    first = night()
    assert (first["web-01"]["failed"], "came back" in str(first["web-01"]["drilled"])) == ("", True)
    assert {first[name]["kind"] for name in ("web-01", "db-01", "off-01")} == {"full"}
    status = {row["name"]: row for row in rows("nightly", "status", *where)}
    assert next(iter(status)) == "lost-01", "who is unprotected comes first"
    assert [status[name]["problem"] for name in ("lost-01", "web-01", "db-01")] == ["it has no point", "", ""]
    assert status["db-01"]["level"] == "crash", "its agent hangs"

    inside("web-01", "sh", "-c", "rm /srv/stock; sync")
    assert vmhost("service", "check", "shop").code == 0, "it runs on, and will not start again"
    for _ in range(2):
        found = night()
        assert (found["web-01"]["failed"], found["web-01"]["kind"]) == ("drill", "incremental")
        assert "shop" in str(found["web-01"]["error"])
        assert (found["db-01"]["kind"], found["off-01"]["kind"]) == ("incremental", "full")
        assert 'vmhost_nightly_success{guest="web-01"} 0.0' in metrics.read_text()

    told = vmhost("nightly", "status", *where, check=False)
    assert told.code == 7
    status = {row["name"]: row for row in rows("nightly", "status", *where)}
    assert [name for name, row in status.items() if row["problem"]] == ["lost-01", "web-01"]
    assert "drill" in str(status["web-01"]["problem"])
    jobs = [row for row in rows("job", "list", "--limit", "1000") if row["kind"] == "nightly"]
    assert len(jobs) >= 3
    vmhost("guest", "exec", "web-01", "--", "true")
