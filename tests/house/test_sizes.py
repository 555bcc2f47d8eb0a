"""Modules and functions stay small enough to be read at one go."""

from __future__ import annotations

import ast
from pathlib import Path

MODULE_LINES = 400
FUNCTION_LINES = 60


def _too_long(folder: Path) -> list[str]:
    found = []
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(folder.parent)
        lines = text.count("\n")
        if lines >= MODULE_LINES:
            found.append(f"{name}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length >= FUNCTION_LINES:
                    found.append(f"{name}:{node.lineno}: {node.name} has {length} lines")
    return found


def test_nothing_is_too_long(root: Path) -> None:
    assert _too_long(root / "vmhost") == []


def test_what_is_too_long_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "vmhost"
    folder.mkdir()
    (folder / "long.py").write_text("x = 1\n" * MODULE_LINES, encoding="utf-8")
    (folder / "deep.py").write_text(
        "class A:\n    def f(self):\n" + "        x = 1\n" * FUNCTION_LINES, encoding="utf-8"
    )
    (folder / "good.py").write_text("def g():\n" + "    x = 1\n" * (FUNCTION_LINES - 2), encoding="utf-8")
    assert _too_long(folder) == ["vmhost/deep.py:2: f has 61 lines", "vmhost/long.py: 400 lines"]
