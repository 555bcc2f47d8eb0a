"""What a step makes different: in XML, of links, in what is held and reserved. Before with -, after with +."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, Final

from vmhost.model.netsteps import GuardNetwork, KeepNetwork
from vmhost.model.observed import Observed
from vmhost.model.plan import Planned
from vmhost.model.steps import CreateSeed, DefineDomain, PlugNic, ScrubSeed, SetMetadata, Step, UndefineDomain
from vmhost.tui.rows.cells import Line, Tone

TONES: Final = {"+": Tone.GOOD, "-": Tone.BAD, "@": Tone.DIM}
_AWAY: Final = ("delete-", "remove-", "detach-", "unplug-", "close-", "unguard-", "unreserve")
_ACTS: Final = frozenset(
    {"start-domain", "shut-down", "power-off", "await-guest", "await-confirmation", "check-tuning", "forget-console"}
)
"""Steps that change what happens, not what something is."""

_WHO: Final = frozenset({"kind", "uuid"})


def difference_lines(item: Planned, observed: Observed) -> Iterator[Line]:
    """Yield what is before and after a step."""
    do, undo = item.do, item.undo
    if isinstance(do, DefineDomain):
        old = next((domain.raw.xml for domain in observed.domains if domain.uuid == do.uuid), "")
        yield from xml_difference(old, do.xml)
    elif isinstance(do, UndefineDomain):
        old = next((domain.raw.xml for domain in observed.domains if domain.uuid == do.uuid), "")
        yield from _signed("-", old.splitlines())
    elif isinstance(do, SetMetadata):
        yield from xml_difference(_apart(undo.xml) if isinstance(undo, SetMetadata) else "", _apart(do.xml))
    elif isinstance(do, PlugNic):
        yield from xml_difference("", do.xml)
    elif do.kind not in _ACTS:
        yield from _values(do, undo)


def _values(do: Step, undo: Step | None) -> Iterator[Line]:
    if do.kind.startswith(_AWAY):
        yield from _signed("-", _shape(undo if undo is not None else do))
    elif type(undo) is type(do):
        yield from _compared(_shape(undo), _shape(do))
    else:
        yield from _signed("+", _shape(do))


def xml_difference(old: str, new: str) -> Iterator[Line]:
    """Yield the lines that differ between two XML texts, with one of those around; a new text whole."""
    if not old:
        yield from _signed("+", new.splitlines())
        return
    difference = difflib.unified_diff(old.splitlines(), new.splitlines(), "as it is", "as it will be", lineterm="", n=1)
    empty = True
    for line in difference:
        empty = False
        yield Line(line, TONES.get(line[:1], Tone.PLAIN))
    if empty:
        yield Line("the XML stays as it is", Tone.DIM)


def _apart(xml: str) -> str:
    return xml.replace("><", ">\n<")


def _signed(sign: str, lines: Iterable[str]) -> Iterator[Line]:
    yield from (Line(f"{sign} {line}", TONES[sign]) for line in lines)


def _compared(old: list[str], new: list[str]) -> Iterator[Line]:
    """Yield both, what is in one only with its sign."""
    for line in difflib.ndiff(old, new):
        if line[0] != "?":
            yield Line(line, TONES.get(line[0], Tone.PLAIN))


def _shape(step: Any) -> list[str]:
    """Return what a step says, by lines: what is nothing is left out."""
    if isinstance(step, CreateSeed | ScrubSeed):
        return [f"{step.pool}/{step.name}", *_documents(step)]
    if isinstance(step, KeepNetwork):
        return [f"at the host's boot: {_told(one)}" for one in step.steps] or ["nothing at the host's boot"]
    if isinstance(step, GuardNetwork):
        head = f"without a confirmation within {step.seconds} s, and when this process dies before:"
        back, then = (f"  {_told(one)}" for one in step.undo), (f"  {line}" for line in _shape(step.keep))
        return [head, *back, "once it is confirmed:", *then]
    return list(_fields(step))


def _fields(value: Any) -> Iterator[str]:
    for item in fields(value):
        found = getattr(value, item.name)
        if item.name in _WHO or (found in ("", 0, (), None) and not isinstance(found, bool)):
            continue
        if isinstance(found, tuple) and found and is_dataclass(found[0]):
            yield from (f"{item.name}: {_told(one)}" for one in found)
        elif is_dataclass(found):
            yield from _fields(found)
        else:
            yield f"{item.name.replace('_', ' ')}: {_word(found)}"


def _told(value: Any) -> str:
    kind = getattr(value, "kind", "").replace("-", " ")
    said = (
        f"{item.name} {_word(found)}"
        for item in fields(value)
        if item.name != "kind" and (found := getattr(value, item.name)) not in ("", 0, ())
    )
    return f"{kind} {', '.join(said)}".strip()


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(_word(one) for one in value)
    return str(value)


def _documents(seed: CreateSeed | ScrubSeed) -> Iterator[str]:
    for name in ("meta_data", "user_data", "network_config"):
        yield f"{name.replace('_', '-')}:"
        text = getattr(seed, name)
        try:
            yield from (f"  {line}" for line in json.dumps(json.loads(text), indent=2).splitlines())
        except ValueError:
            yield from (f"  {line}" for line in text.splitlines())
