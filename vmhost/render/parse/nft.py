"""Our table as ``nft --json list table`` tells it, in values."""

from __future__ import annotations

import json
from typing import Any

from vmhost.model.guard import REASONS, ObservedGuard


def parse_guards(text: str) -> tuple[ObservedGuard, ...]:
    """Return the guards of all ports, by port; of an empty text, none.

    A chain that is no port's has no counters of ours and is passed over.
    """
    if not text:
        return ()
    items = [item for entry in json.loads(text).get("nftables", ()) for item in entry.items()]
    counters = {str(value["name"]): int(value["packets"]) for kind, value in items if kind == "counter"}
    marks: dict[str, list[str]] = {}
    for kind, value in items:
        if kind == "rule":
            marks.setdefault(str(value["chain"]), []).append(str(value.get("comment", "")))
    reached = _reached(items)
    return tuple(
        ObservedGuard(name, tuple(marks.get(name, ())), name in reached, _dropped(name, counters))
        for name in sorted(str(value["name"]) for kind, value in items if kind == "chain" and "hook" not in value)
    )


def _dropped(port: str, counters: dict[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple((reason, counters[f"{port}.{reason}"]) for reason in REASONS if f"{port}.{reason}" in counters)


def _reached(items: list[tuple[str, Any]]) -> frozenset[str]:
    """Return the ports that a map leads to the chain of their name, if a chain that frames come to asks it."""
    bases = {value["name"] for kind, value in items if kind == "chain" and value.get("hook") == "prerouting"}
    asked = {
        str(expression["vmap"]["data"]).removeprefix("@")
        for kind, value in items
        if kind == "rule" and value["chain"] in bases
        for expression in value["expr"]
        if "vmap" in expression
    }
    found = set()
    for kind, value in items:
        if kind == "map" and value["name"] in asked:
            for port, verdict in value.get("elem", ()):
                if verdict.get("jump", {}).get("target") == port:
                    found.add(str(port))
    return frozenset(found)
