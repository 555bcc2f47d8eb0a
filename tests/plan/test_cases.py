"""Golden plans: the text that an operator reads, the undo of every step, and that what was promised is done.

``VMHOST_UPDATE_GOLDEN=1 pytest tests/plan`` writes the files anew; read what changed as an operator would.
"""

from __future__ import annotations

import os

import pytest

from tests.plan.golden import CASES, Case, shown
from vmhost.model.errors import VmhostError
from vmhost.ops.host import Host

NAMES = sorted(path.parent.name for path in CASES.glob("*/site.yaml"))
UPDATE = os.environ.get("VMHOST_UPDATE_GOLDEN") == "1"


@pytest.fixture(autouse=True)
def _ann(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "ann")


@pytest.mark.parametrize("name", NAMES)
def test_plan_undo_and_drift_read_as_agreed(name: str) -> None:
    case = Case(CASES / name)
    for file, text in shown(case).items():
        path = case.directory / file
        if UPDATE and text:
            path.write_text(text, encoding="utf-8")
        elif UPDATE:
            path.unlink(missing_ok=True)
        agreed = path.read_text(encoding="utf-8") if path.exists() else ""
        assert text == agreed, f"{path}; VMHOST_UPDATE_GOLDEN=1 writes it anew"


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_that_was_applied_leaves_nothing_to_do(name: str) -> None:
    case = Case(CASES / name)
    fake = case.stage()
    host = Host(ports=fake.ports)
    before = fake.state()
    try:
        proposal = case.propose(fake)
    except VmhostError:
        assert fake.state() == before
        return
    host.apply(proposal)
    again = host.plan(case.site)
    assert again.empty, str(again)
    assert host.drift(case.site) == ()
