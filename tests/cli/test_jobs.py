"""What is told of a job while it runs: for how long, how far, and how fast."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.cli.session import Terminal
from vmhost.drivers.images.store import ImageStore
from vmhost.model.events import Event, Progress
from vmhost.model.image import ImageRecord
from vmhost.model.outcome import JobRecord
from vmhost.ops.host import Host
from vmhost.testing import FakeHost
from vmhost.testing.demo import demo_host


def test_a_job_that_runs_tells_how_long_how_far_and_how_fast(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = demo_host()
    began = host.ports.clock.now()
    host.history.start(JobRecord("20260102-000000-d4", "backup", "db-01", "running", began, pid=os.getpid()))
    host.history.update("20260102-000000-d4", progress="db-01: copy", done=2e9, total=8e9, rate=1e8)
    host.advance(20)
    monkeypatch.setattr("vmhost.testing.demo.demo_ports", lambda _uri: host.ports)
    (line,) = (line for line in terminal.run("job", "list")[1].splitlines() if "running" in line)
    assert line.endswith("  20.0     25 % at 1.2 % a second: db-01: copy")
    shown = terminal.run("job", "show", "20260102")[1]
    assert "seconds:   20.0\n" in shown
    assert "progress:  25 % at 1.2 % a second: db-01: copy\n" in shown


def test_an_image_is_made_at_a_rate(tmp_path: Path) -> None:
    fake, told = FakeHost(), list[Event]()
    made = fake.add_image("distro-1")

    class Slow(ImageStore):
        def pull(self, name: str, *, on_progress: Any = None) -> ImageRecord:
            fake.advance(10)
            on_progress("downloading", 0.2)
            return made

    Host(ports=replace(fake.ports, images=Slow(tmp_path))).images.pull("distro-1", on_event=told.append)
    assert told == [Progress("distro-1", "downloading", 20.0, 100, 2.0)]
