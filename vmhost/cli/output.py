"""Tables, JSON, YAML and names: the four forms in which data leaves on stdout."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Final

import click

from vmhost.model.text import sanitize

API_VERSION: Final = "vmhost/v1"
FORMATS: Final = ("table", "json", "yaml", "name")
DOCUMENTS: Final = ("json", "yaml")


def format_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``-o table|json|yaml|name``."""
    return click.option("-o", "--output", type=click.Choice(FORMATS), default="table", help="Form of the output.")(
        function
    )


def plain(value: Any) -> Any:
    """Return a value as JSON knows it: dataclasses and models become mappings, paths texts."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path | BaseException):
        return str(value)
    if isinstance(value, frozenset | set):
        return sorted(plain(item) for item in value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def emit(form: str, kind: str, value: Any) -> None:
    """Write a value as a versioned document in JSON or YAML."""
    import json

    document = {"apiVersion": API_VERSION, "kind": kind, "data": plain(value)}
    if form == "yaml":
        _yaml(document)
    else:
        sys.stdout.write(json.dumps(document, indent=2) + "\n")


def names(items: Iterable[str]) -> None:
    """Write names, each once, one a line."""
    for item in dict.fromkeys(items):
        sys.stdout.write(sanitize(item) + "\n")


def show(
    form: str,
    kind: str,
    items: Sequence[Any],
    columns: Sequence[str],
    cells: Callable[[Any], Sequence[str]],
    name: Callable[[Any], str],
) -> None:
    """Write a listing in the form that was asked for."""
    if form in DOCUMENTS:
        emit(form, kind, items)
    elif form == "name":
        names(name(item) for item in items)
    else:
        table(columns, [cells(item) for item in items])


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write rows in aligned columns, every cell safe for a terminal; no wider than their content."""
    safe = [[sanitize(cell) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(columns, *safe, strict=True)]
    for row in (columns, *safe):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        sys.stdout.write("  ".join(cells).rstrip() + "\n")


def _yaml(value: Any) -> None:
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.allow_unicode = False  # bidi controls are printable to YAML, not to a terminal
    yaml.dump(value, sys.stdout)
