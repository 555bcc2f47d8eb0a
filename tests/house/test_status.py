"""docs/status.md is complete, and "done" means that tests show it."""

from __future__ import annotations

import re
from pathlib import Path

STATES = {"open", "done", "unproven"}
# The chapters, each with the number of its last part; parts are counted from 0.
CHAPTERS = {
    "From a site file to running guests": 13,
    "VLANs that stay true": 8,
    "The placer": 9,
    "Services inside guests": 6,
    "Snapshots, backups, restores": 10,
    "The terminal interface": 10,
}


def _faults(text: str, root: Path) -> list[str]:
    faults = []
    parts: dict[str, list[int]] = {}
    chapter = ""
    for line in text.splitlines():
        if line.startswith("## "):
            chapter = line[3:]
        row = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|") or row[0] in {"part", "what"} or set(row[0]) <= {"-"}:
            continue
        part, state, shown_by = row
        if number := re.match(r"(\d+) ", part):
            parts.setdefault(chapter, []).append(int(number[1]))
        tests = re.findall(r"`(tests/[^`]+)`", shown_by)
        if state not in STATES:
            faults.append(f"{chapter}: {part}: unknown state {state!r}")
        if state != "open" and not tests:
            faults.append(f"{chapter}: {part}: {state}, but no test is named")
        faults += [
            f"{chapter}: {part}: {test} is not there" for test in tests if not (root / test.split("::")[0]).exists()
        ]
    for title, last in CHAPTERS.items():
        if parts.get(title) != list(range(last + 1)):
            faults.append(f"{title}: the parts are {parts.get(title)}, not 0 to {last}")
    return faults


def test_every_part_has_an_honest_line(root: Path) -> None:
    assert _faults((root / "docs" / "status.md").read_text(encoding="utf-8"), root) == []


def test_dishonest_lines_are_found(root: Path) -> None:
    text = (root / "docs" / "status.md").read_text(encoding="utf-8")
    text = re.sub(r"^\| 4 Quotas .*$", "| 4 Quotas | done | |", text, flags=re.MULTILINE)
    text = re.sub(r"^\| 5 Healing .*$", "| 5 Healing | nearly | `tests/nowhere.py` |", text, flags=re.MULTILINE)
    text = re.sub(r"^\| 9 Forms .*\n", "", text, flags=re.MULTILINE)
    assert _faults(text, root) == [
        "The placer: 4 Quotas: done, but no test is named",
        "Services inside guests: 5 Healing: unknown state 'nearly'",
        "Services inside guests: 5 Healing: tests/nowhere.py is not there",
        "The terminal interface: the parts are [0, 1, 2, 3, 4, 5, 6, 7, 8, 10], not 0 to 10",
    ]
