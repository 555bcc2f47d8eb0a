"""pydantic's errors in the words of people who write site files."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from vmhost.model.errors import Fault
from vmhost.model.spec.base import Model
from vmhost.model.units import shown

Key = str | int

_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
_WANTED: Final = {
    "string_type": "text is expected",
    "int_type": "a whole number is expected",
    "int_from_float": "a whole number is expected",
    "bool_type": "true or false is expected",
    "model_type": "a mapping is expected",
    "model_attributes_type": "a mapping is expected",
    "dict_type": "a mapping is expected",
    "tuple_type": "a list is expected",
}
_LIMITS: Final = {
    "greater_than_equal": ("is too small: at least", "ge"),
    "less_than_equal": ("is too large: at most", "le"),
}


def dotted(path: Iterable[Key]) -> str:
    """Return a path as people read it: ``guests.web-01.nics[0].address``; odd keys are quoted and cut."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            text += ("." if text else "") + (key if _PLAIN.fullmatch(key) else shown(key))
    return text


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'memory'?`` for the known word most like ``word``, else all of them if they are few."""
    names = sorted(known)
    lowered = {name.lower(): name for name in names}
    close = difflib.get_close_matches(word.lower()[:80], lowered, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {lowered[close[0]]!r}?"
    return f"; known here: {', '.join(names)}" if 0 < len(names) <= 24 else ""


def faults_of(error: ValidationError, model: type[Model], data: Any) -> list[tuple[tuple[Key, ...], str]]:
    """Return every fault as its path in ``data`` and its message, without repeats."""
    schema = _schema(model)
    found: dict[tuple[tuple[Key, ...], str], None] = {}
    for details in error.errors(include_url=False):
        if details["type"] == "too_short" and len(details["input"]) >= details["ctx"]["min_length"]:
            continue  # it counts only the items that are valid
        path = _path(details["loc"], data)
        found[path, _message(details, path, schema)] = None
    return list(found)


@cache
def _schema(model: type[Model]) -> dict[str, Any]:
    return model.model_json_schema()


def as_faults(found: Iterable[tuple[Sequence[Key], str]]) -> list[Fault]:
    """Return faults with dotted paths."""
    return [Fault(dotted(path), message) for path, message in found]


def _path(loc: Sequence[Key], data: Any) -> tuple[Key, ...]:
    """Return where in the file pydantic's location is.

    Left out are the names of union members, keys as such, and what is below a scalar that stands for a mapping.
    """
    if not loc:
        return ()  # a fault of the whole
    path: list[Key] = []
    here = data
    for key, following in pairwise(loc):
        child = _child(here, key)
        if key == following and not (isinstance(child, dict) and following in child):
            continue
        if isinstance(child, (dict, list, tuple)):
            path.append(key)
            here = child
        elif child is not None and _child(here, following) is None:
            return (*path, key)
    return tuple(path) if loc[-1] == "[key]" else (*path, loc[-1])


def _child(here: Any, key: Key) -> Any:
    if isinstance(here, dict):
        return here.get(key)
    if isinstance(here, (list, tuple)) and isinstance(key, int) and key < len(here):
        return here[key]
    return None


def _message(details: ErrorDetails, path: Sequence[Key], schema: dict[str, Any]) -> str:
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return f"unknown key{nearest(str(path[-1]), _known(schema, path[:-1]))}"
    if kind == "literal_error":
        return f"{shown(value)} is not valid here: write {context['expected']}"
    if kind in _WANTED:
        quote = ': write it in quotes, "..."' if kind == "string_type" and isinstance(value, (int, float)) else ""
        return f"{_WANTED[kind]}, not {shown(value)}{quote}"
    if kind in _LIMITS:
        words, key = _LIMITS[kind]
        return f"{shown(value)} {words} {context[key]}"
    if kind in ("too_short", "too_long") and not isinstance(value, str):
        bound = f"at least {context['min_length']}" if kind == "too_short" else f"at most {context['max_length']}"
        return f"holds {context['actual_length']}: {bound} in the list"
    if kind.endswith(("too_long", "too_short")):
        bound = f"at most {context['max_length']}" if kind.endswith("long") else f"at least {context['min_length']}"
        return f"{shown(value)}: {bound} characters are allowed"
    return f"{details['msg']}, not {shown(value)}"


def _known(schema: dict[str, Any], path: Sequence[Key]) -> set[str]:
    """Return the keys that a mapping at ``path`` may have, as the JSON Schema says."""
    places = list(_variants(schema, schema))
    for key in path:
        places = [place for parent in places for place in _below(schema, parent, key)]
    return {name for place in places for name in place.get("properties", {})}


def _below(schema: dict[str, Any], place: dict[str, Any], key: Key) -> Iterator[dict[str, Any]]:
    if isinstance(key, int):
        found = [place.get("items")]
    elif key in place.get("properties", {}):
        found = [place["properties"][key]]
    else:
        found = [place.get("additionalProperties"), *place.get("patternProperties", {}).values()]
    for branch in found:
        if isinstance(branch, dict):
            yield from _variants(schema, branch)


def _variants(schema: dict[str, Any], place: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "$ref" in place:
        yield from _variants(schema, schema["$defs"][place["$ref"].rpartition("/")[2]])
        return
    yield place
    for branch in (*place.get("anyOf", ()), *place.get("oneOf", ()), *place.get("allOf", ())):
        yield from _variants(schema, branch)
