"""Every folder of ``cases`` is a site file with what vmhost says of it: its faults, or the site that it resolves to.

``VMHOST_UPDATE_GOLDEN=1`` writes the answers anew; read the difference before you commit it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vmhost.model.errors import SpecError
from vmhost.ops.sites import load_site

CASES = sorted((Path(__file__).parent / "cases").iterdir())


def answer(monkeypatch: pytest.MonkeyPatch, case: Path) -> tuple[str, str]:
    monkeypatch.chdir(case)
    try:
        site = load_site("site.yaml")
    except SpecError as error:
        return "faults.txt", f"{error}\n"
    return "resolved.json", site.model_dump_json(indent=2, exclude_none=True) + "\n"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, text = answer(monkeypatch, case)
    if os.environ.get("VMHOST_UPDATE_GOLDEN") == "1":
        (case / name).write_text(text)
    assert {path.name for path in case.iterdir()} & {"faults.txt", "resolved.json"} == {name}
    assert text == (case / name).read_text()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_answers_are_safe_for_a_terminal(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, text = answer(monkeypatch, case)
    if name == "faults.txt":
        assert all(line.isprintable() for line in text.splitlines())
        assert all(len(line) < 400 for line in text.splitlines())
