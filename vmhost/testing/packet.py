"""``ports.Packet`` on a fake host: what nftables makes of the commands that :mod:`vmhost.render.nft` sends."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vmhost.model.errors import DriverError
from vmhost.model.guard import ObservedGuard
from vmhost.render.parse.nft import parse_guards
from vmhost.testing.world import World

if TYPE_CHECKING:
    from vmhost.testing.machine import Machine

Entry = dict[str, Any]


class FakePacket:
    """Our table on a fake host."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def table(self) -> str:
        with self._machine.at_work() as world:
            return world.nft

    def change(self, make: Callable[[str], str], *, look: bool = True) -> None:
        with self._machine.at_work(changing=True) as world:
            change(world, make if look else lambda _: make(""))


def change(world: World, make: Callable[[str], str]) -> None:
    """Do one transaction, all or nothing. :raises DriverError: something that it deletes is not there."""
    batch = make(world.nft)
    if not batch:
        return
    table = _Table(json.loads(world.nft)["nftables"] if world.nft else [])
    for command in json.loads(batch)["nftables"]:
        ((verb, what),) = command.items()
        ((kind, values),) = what.items()
        getattr(table, verb)(kind, values)
    world.nft = json.dumps({"nftables": table.entries}) if table.entries else ""


def guards_of(text: str) -> tuple[ObservedGuard, ...]:
    """Return the guards of a table as text."""
    return parse_guards(text)


class _Table:
    """Entries as ``nft --json list table`` tells them."""

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries

    def add(self, kind: str, values: Entry) -> None:
        if kind == "element":
            elements = self._one("map", values["name"]).setdefault("elem", [])
            elements.extend(item for item in values["elem"] if item not in elements)
        elif kind == "rule":
            self._one("chain", values["chain"])
            self.entries.append({"rule": values})
        elif not self._find(kind, values["name"]):
            self.entries.append({kind: {**values, "packets": 0} if kind == "counter" else values})

    def flush(self, kind: str, values: Entry) -> None:
        self._one(kind, values["name"])
        self.entries = [entry for entry in self.entries if entry.get("rule", {}).get("chain") != values["name"]]

    def delete(self, kind: str, values: Entry) -> None:
        if kind == "table":
            self._one(kind, values["name"])
            self.entries = []
        elif kind == "element":
            elements = self._one("map", values["name"]).get("elem", [])
            for item in values["elem"]:
                if item not in elements:
                    raise _absent("element", item[0])
                elements.remove(item)
        else:
            self._one(kind, values["name"])
            self.entries = [entry for entry in self.entries if entry.get(kind, {}).get("name") != values["name"]]

    def _find(self, kind: str, name: str) -> list[Entry]:
        return [entry[kind] for entry in self.entries if kind in entry and entry[kind]["name"] == name]

    def _one(self, kind: str, name: str) -> Entry:
        found = self._find(kind, name)
        if not found:
            raise _absent(kind, name)
        return found[0]


def _absent(kind: str, name: str) -> DriverError:
    return DriverError(f"Error: Could not process rule: No such file or directory ({kind} {name})", subject="nft")
