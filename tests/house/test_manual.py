"""The README and the manual say what the command line does."""

from __future__ import annotations

import re
from pathlib import Path

import click

from vmhost.cli.diagnostics import EXIT_CODES
from vmhost.cli.main import cli


def _named_commands(readme: str) -> list[tuple[str, ...]]:
    """Return the commands of the README's table: ``vmhost guest list``, ``show`` means ``guest show`` as well."""
    named = []
    for row in re.findall(r"^\| (`vmhost [^|]+) \|", readme, re.MULTILINE):
        first, *others = [
            tuple(word for word in code.split() if word.islower()) for code in re.findall(r"`([^`]+)`", row)
        ]
        named.append(first[1:])
        named += [(*first[1:-1], *other) for other in others]
    return named


def _is_there(words: tuple[str, ...]) -> bool:
    command: click.Command | None = cli
    for word in words:
        if not isinstance(command, click.Group):
            return False
        command = command.get_command(click.Context(command), word)
    return command is not None


def test_every_command_of_the_readme_is_there(root: Path) -> None:
    named = _named_commands((root / "README.md").read_text(encoding="utf-8"))
    assert {("plan",), ("apply",), ("guest", "list"), ("guest", "show"), ("image", "pull")} <= set(named)
    assert [" ".join(words) for words in named if not _is_there(words)] == []
    assert not _is_there(("guest", "destroy"))


def test_the_table_of_exit_codes_is_the_codes(root: Path) -> None:
    page = (root / "docs" / "manual" / "exit-codes.md").read_text(encoding="utf-8")
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)] == sorted(EXIT_CODES)
