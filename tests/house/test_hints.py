"""Every command that vmhost tells a person to type is one that vmhost takes."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from vmhost.cli.main import cli

SENTENCES = re.compile(r"vmhost (is made|signs in|gives the guest|site$|recover settles|does not move)")
BEGINS = re.compile(r"(sudo )?vmhost (?=[-a-z])")
ADDED = re.compile(r"\badd (--[a-z-]+)")


def _texts(source: str) -> Iterator[tuple[int, str]]:
    """Yield every text of a module that is no docstring, with its line; what is filled in later becomes X1."""
    tree = ast.parse(source)
    silent: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            silent.add(id(node.value))
        if isinstance(node, ast.JoinedStr):
            silent.update(id(part) for part in node.values)
            parts = (str(part.value) if isinstance(part, ast.Constant) else "X1" for part in node.values)
            yield node.lineno, "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in silent:
            yield node.lineno, node.value


def _commands(text: str) -> Iterator[str]:
    """Yield the commands in a text: each line and each alternative that begins with vmhost and is no sentence."""
    for line in text.splitlines():
        for part in re.split(r", or |; ", line):
            plain = re.sub(r"\s{2,}.*", "", part.strip())
            if BEGINS.match(plain) and not SENTENCES.match(plain) and not plain.endswith("..."):
                yield BEGINS.sub("", plain, count=1)


def _parse(words: list[str]) -> None:
    """Read a command line as vmhost does, without doing anything. :raises click.ClickException: it does not take it."""
    command: click.Command = cli
    try:
        context = command.make_context("vmhost", words)
        while isinstance(command, click.Group):
            name, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
            if found is None:
                raise click.UsageError(f"no command {name}")
            command = found
            context = command.make_context(name, rest, parent=context)
    except click.exceptions.Exit:
        return  # --version and --help


def _options(command: click.Command) -> Iterator[str]:
    for parameter in command.params:
        yield from parameter.opts
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None:
                yield from _options(below)


def _faults(folder: Path) -> tuple[int, list[str]]:
    """Return how many commands were found, and those that are not vmhost's."""
    count, faults, options = 0, [], set(_options(cli))
    for path in sorted(folder.rglob("*.py")):
        for line, text in _texts(path.read_text(encoding="utf-8")):
            place = f"{path.relative_to(folder.parent)}:{line}"
            faults += [f"{place}: add {flag}: no such option" for flag in ADDED.findall(text) if flag not in options]
            for command in _commands(text):
                count += 1
                try:
                    _parse(shlex.split(command))
                except (click.ClickException, ValueError) as error:
                    faults.append(f"{place}: vmhost {command}: {error}")
    return count, faults


def test_every_command_that_is_told_can_be_typed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    count, faults = _faults(root / "vmhost")
    assert faults == []
    assert count > 60, "they are found at all"


@pytest.mark.parametrize(
    ("hint", "fault"),
    [
        ("'vmhost swimming list'", "no such command 'swimming'"),
        ("f'sudo vmhost guest shwo {name}'", "no such command 'shwo'"),
        ("'vmhost plan'", "missing parameter"),
        ("'vmhost guest stop X, or vmhost guest stop X --powr-off'", "No such option"),
        ("'add --powr-off'", "no such option"),
    ],
)
def test_a_wrong_command_is_found(tmp_path: Path, hint: str, fault: str) -> None:
    module = tmp_path / "vmhost" / "one.py"
    module.parent.mkdir()
    module.write_text(f"raise Refused('it is wrong', hint={hint})\n", encoding="utf-8")
    (found,) = _faults(module.parent)[1]
    assert fault.lower() in found.lower()
