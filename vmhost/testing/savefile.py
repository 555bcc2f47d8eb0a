"""A fake host that outlives its process, as a file of JSON: for tests that call the command line several times."""

from __future__ import annotations

import base64
import dataclasses
import json
import types
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from vmhost.model.errors import DamagedData
from vmhost.testing.world import World


def load(path: Path) -> World | None:
    """Return the world in a file, or None when there is no file. Whoever wrote it has ended; its journals are open.

    :raises DamagedData: the file holds no world.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        world: World = _read(World, json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedData(f"this is no fake host: {error}", subject=str(path), hint=f"rm {path}") from error
    return world


def store(path: Path, world: World) -> None:
    """Replace the file by this world. One process at a time: the last one wins."""
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(json.dumps(_plain(world)), encoding="utf-8")
    draft.replace(path)


def _plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, frozenset):
        return sorted(map(_plain, value))
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return str(value) if isinstance(value, Path) else value


def _read(kind: Any, value: Any) -> Any:
    """Return the value of a type that :func:`_plain` made JSON of."""
    origin, arguments = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = _hints(kind)
        return kind(**{name: _read(hints[name], item) for name, item in value.items()})
    if origin is dict:
        return {key: _read(arguments[1], item) for key, item in value.items()}
    if origin in (list, frozenset):
        return origin(_read(arguments[0], item) for item in value)
    if origin is tuple:
        return tuple(_read(item_kind, item) for item_kind, item in zip(arguments, value, strict=True))
    if origin is types.UnionType:
        return None if value is None else _read(next(one for one in arguments if one is not types.NoneType), value)
    if kind is bytes:
        return base64.b64decode(value)
    return kind(value) if kind is Path or (isinstance(kind, type) and issubclass(kind, StrEnum)) else value


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
