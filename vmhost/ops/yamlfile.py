"""YAML as site files need it: every key with its line, duplicate keys as faults, nothing that expands or constructs.

The text becomes a tree straight from the parser's events, so that depth, size and aliases are limited before anything
is built, and so that every fault is found, not only the first. Scalars are resolved by YAML 1.2's core schema (10.3.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from vmhost.model.errors import Fault
from vmhost.model.spec.faults import Key, dotted
from vmhost.model.units import shown

DEEPEST: Final = 32
MOST_NODES: Final = 50_000

_INT = re.compile(r"[-+]?[0-9]{1,18}|0o[0-7]{1,20}|0x[0-9a-fA-F]{1,15}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,30}|[0-9]{1,30}(\.[0-9]{0,30})?)([eE][-+]?[0-9]{1,3})?")
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLS = {word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")}
_NOT_TEXT = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NO_ANCHORS: Final = "anchors and aliases are not read in a site file: write what guests share in defaults or profiles"


class _Stop(Exception):
    """The text cannot be read further."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


@dataclass(slots=True)
class Tree:
    """What a text says. ``lines`` has the line of every dotted path; ``readable`` is False if it ends in a fault."""

    data: Any = None
    lines: dict[str, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    readable: bool = True

    def line(self, path: str) -> int:
        """Return the line of a path, or of the nearest thing around it; 0 when there is none."""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = re.sub(r"(^|\.)[^.\[\]]*$|\[[^\[\]]*\]$", "", path)
        return self.lines.get("", 0)


def read_tree(text: str) -> Tree:
    """Return the tree of one YAML document and every fault of its form."""
    tree = Tree()
    builder = _Builder(tree)
    try:
        _refuse_binary(text)
        for event in _events(text):
            builder.take(event)
    except _Stop as stop:
        tree.faults.append(stop.fault)
        tree.readable = False
    return tree


def _refuse_binary(text: str) -> None:
    found = _NOT_TEXT.search(text)
    if found:
        line = text.count("\n", 0, found.start()) + 1
        raise _Stop(Fault("", f"the character {shown(found.group())} is not allowed in a site file", line))


def _events(text: str) -> Iterator[Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        yield from YAML(typ="safe", pure=True).parse(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _Stop(Fault("", _in_words(error), mark.line + 1 if mark else 0)) from None
    except (YAMLError, ValueError) as error:
        raise _Stop(Fault("", f"this is not YAML: {shown(str(error))}")) from None


def _in_words(error: Any) -> str:
    problem, context = error.problem or "", error.context or ""
    if "'\\t'" in problem:
        return "a tab: YAML is indented with spaces"
    if "mapping values are not allowed" in problem:
        return "a ':' where no key can stand: is the line before it complete, and is text with ': ' in quotes?"
    if "expected <block end>" in problem or "could not find expected ':'" in problem:
        return f"the indentation or a ':' is wrong here ({problem})"
    if "but got ':'" in problem:
        return "a ':' where no value can stand: is a ',' missing before it, or is the key longer than 1,024 characters?"
    return f"this is not YAML: {problem}{f' {context}' if context else ''}"


@dataclass(slots=True)
class _Frame:
    """An open mapping or list."""

    values: dict[str, Any] | list[Any]
    path: tuple[Key, ...]
    key: str | None = None
    repeated: bool = False


class _Builder:
    """Puts events together; each collection in its place as it is closed."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._open: list[_Frame] = []
        self._nodes = 0
        self._anchored = False
        self._documents = 0

    def take(self, event: Any) -> None:
        """Add one event of ruamel's parser. :raises _Stop: when reading on makes no sense."""
        line = event.start_mark.line + 1
        kind = type(event).__name__
        if kind == "DocumentStartEvent":
            self._begin_document(event, line)
        elif kind in ("MappingStartEvent", "SequenceStartEvent"):
            self._begin(event, line, {} if kind.startswith("Mapping") else [])
        elif kind in ("MappingEndEvent", "SequenceEndEvent"):
            self._end()
        elif kind == "ScalarEvent":
            self._count(line)
            self._scalar(event, line)
        elif kind == "AliasEvent":
            self._refuse_anchor(line, self._next_path())
            self._put(None)

    def _begin_document(self, event: Any, line: int) -> None:
        self._documents += 1
        if self._documents > 1:
            raise _Stop(Fault("", "a second document begins here: a site is one document", line))
        if event.tags or event.version not in (None, (1, 2)):
            raise _Stop(Fault("", "a site file is YAML 1.2 without directives", line))

    def _begin(self, event: Any, line: int, values: dict[str, Any] | list[Any]) -> None:
        self._count(line)
        if self._wants_key():
            raise _Stop(Fault(dotted(self._open[-1].path), "a key is a word, not a mapping or a list", line))
        if len(self._open) >= DEEPEST:
            raise _Stop(Fault("", f"nested more than {DEEPEST} deep", line))
        path = self._next_path()
        self._refuse_extras(event, line, path)
        self._tree.lines.setdefault(dotted(path), line)
        self._open.append(_Frame(values, path))

    def _end(self) -> None:
        frame = self._open.pop()
        self._put(frame.values)

    def _scalar(self, event: Any, line: int) -> None:
        text = self._paired(event.value, line)
        if self._wants_key():
            self._open_key(text, line)
            return
        path = self._next_path()
        self._refuse_extras(event, line, path)
        self._tree.lines.setdefault(dotted(path), line)
        self._put(_resolve(text) if event.implicit[0] else text)

    def _open_key(self, key: str, line: int) -> None:
        frame = self._open[-1]
        path = (*frame.path, key)
        frame.key, frame.repeated = key, key in frame.values
        if frame.repeated:
            first = self._tree.lines.get(dotted(path), 0)
            self._tree.faults.append(Fault(dotted(path), f"given twice: first on line {first}", line))
        else:
            self._tree.lines[dotted(path)] = line

    def _put(self, value: Any) -> None:
        """Put a finished value where it belongs; of a repeated key the first value stays."""
        if not self._open:
            self._tree.data = value
            return
        frame = self._open[-1]
        if isinstance(frame.values, list):
            frame.values.append(value)
        elif frame.key is None:
            raise _Stop(Fault(dotted(frame.path), "a key is a word, not an alias", 0))
        else:
            if not frame.repeated:
                frame.values[frame.key] = value
            frame.key = None

    def _wants_key(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1].values, dict) and self._open[-1].key is None

    def _next_path(self) -> tuple[Key, ...]:
        if not self._open:
            return ()
        frame = self._open[-1]
        return (*frame.path, len(frame.values) if isinstance(frame.values, list) else frame.key or "")

    def _refuse_extras(self, event: Any, line: int, path: tuple[Key, ...]) -> None:
        if event.anchor is not None:
            self._refuse_anchor(line, path)
        if event.tag is not None:
            self._tree.faults.append(
                Fault(dotted(path), f"the tag {shown(str(event.tag))} is not read in a site file", line)
            )

    def _paired(self, text: str, line: int) -> str:
        """Return a text with surrogate pairs put together, as JSON escapes them (RFC 8259, 7)."""
        if text.isprintable() or not _SURROGATE.search(text):
            return text
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            path = dotted(self._open[-1].path if self._open else ())
            raise _Stop(Fault(path, "a text holds half of a surrogate pair", line)) from None

    def _refuse_anchor(self, line: int, path: tuple[Key, ...]) -> None:
        """Say it of the first one only: whoever uses one, uses many."""
        if not self._anchored:
            self._tree.faults.append(Fault(dotted(path), _NO_ANCHORS, line))
        self._anchored = True

    def _count(self, line: int) -> None:
        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise _Stop(Fault("", f"more than {MOST_NODES:,} values", line))


def _resolve(text: str) -> Any:
    """Return the value of a plain scalar: null, true, false, a number, or text."""
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
