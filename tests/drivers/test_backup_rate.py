"""QEMU's block jobs of a backup are told how fast they may write, and may have ended by then."""

from __future__ import annotations

from typing import Any

import pytest

from vmhost.drivers.libvirt import backup
from vmhost.model.errors import DriverError


class Qemu:
    """Block jobs by their names; ``refuses`` takes no speed, ``ends`` is done by then."""

    def __init__(self, jobs: dict[str, str], *, refuses: str = "", ends: str = "") -> None:
        self.jobs, self.refuses, self.ends = jobs, refuses, ends
        self.speeds: dict[str, int] = {}

    def ask(self, _domain: object, command: str, **words: Any) -> Any:
        """Answer as QEMU does."""
        if command == "query-block-jobs":
            kinds = {name: "mirror" if name == "mirror" else "backup" for name in self.jobs}
            return [{"device": name, "type": kinds[name], "status": status} for name, status in self.jobs.items()]
        assert command == "block-job-set-speed"
        name = words["device"]
        if name == self.ends:
            self.jobs[name] = "concluded"
        if name in (self.refuses, self.ends):
            raise DriverError(f"Job '{name}' cannot accept command verb 'set-speed'", subject="web")
        self.speeds[name] = words["speed"]
        return {}


def test_jobs_that_copy_are_slowed_down_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = {"vda": "running", "vdb": "concluded", "vdc": "created", "vdd": "running", "mirror": "running"}
    qemu = Qemu(jobs, ends="vdd")
    monkeypatch.setattr(backup, "_ask", qemu.ask)
    backup._slow_down(None, 4096)
    assert qemu.speeds == {"vda": 4096, "vdc": 4096}


def test_a_job_that_copies_on_and_takes_no_speed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    qemu = Qemu({"vda": "running"}, refuses="vda")
    monkeypatch.setattr(backup, "_ask", qemu.ask)
    with pytest.raises(DriverError, match="set-speed"):
        backup._slow_down(None, 4096)
