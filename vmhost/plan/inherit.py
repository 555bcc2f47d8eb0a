"""From what a person wrote to complete guests: defaults, profiles, numbered guests, everything left open filled in."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from vmhost.model.spec import GuestInput, GuestSpec, NetworkSpec, NicSpec, SiteInput
from vmhost.model.spec.faults import Key, faults_of, nearest

Found = tuple[tuple[Key, ...], str]
Broken = Mapping[str, Container[str]]
Level = tuple[tuple[str, str], GuestInput]


@dataclass(slots=True)
class Draft:
    """A site on its way: what was written, the guests so far, and the faults so far.

    ``broken`` names entries, by section, of which at least a part could not be read: a reference to one is no fault,
    and neither is it that something is missing there. ``halves`` are the NICs of guests that cannot be completed.
    """

    written: SiteInput
    broken: Broken
    guests: list[tuple[str, GuestSpec]] = field(default_factory=list)
    halves: list[tuple[str, tuple[NicSpec, ...]]] = field(default_factory=list)
    faults: list[Found] = field(default_factory=list)

    def fault(self, message: str, *path: Key) -> None:
        """Note a fault."""
        self.faults.append((path, message))

    def partial(self, levels: Iterable[tuple[str, str]]) -> bool:
        """Whether a part of any of these entries could not be read."""
        return any(name in self.broken.get(section, ()) for section, name in levels)

    def knows(self, section: str, name: str) -> bool:
        """Whether a network or profile of that name stands in the file, readable or not."""
        return name in getattr(self.written, section) or name in self.broken.get(section, ())

    def nearest(self, section: str, name: str) -> str:
        """Return the end of a message about an unknown name: which one may be meant."""
        broken = self.broken.get(section, ())
        return nearest(
            name, {*getattr(self.written, section), *(broken if isinstance(broken, (set, frozenset)) else ())}
        )


def draft_guests(draft: Draft) -> None:
    """Fill ``draft.guests`` with every guest that can be completed, each with the name of its entry."""
    _check_levels(draft)
    for entry, written in draft.written.guests.items():
        chain = _chain(draft, entry, written)
        if chain is not None:
            merged: dict[str, Any] = {}
            for _, level in chain:
                merged = merge(merged, level.model_dump(exclude_unset=True, exclude={"profile", "count"}))
            _check_references(draft, entry, merged)
            _complete(draft, entry, written, merged, draft.partial(name for name, _ in chain))


def _check_levels(draft: Draft) -> None:
    for key in ("profile", "count"):
        if getattr(draft.written.defaults, key) is not None:
            draft.fault(f"{key} belongs to a guest, not to the defaults", "defaults", key)
    for name, profile in draft.written.profiles.items():
        if profile.count is not None:
            draft.fault("count belongs to a guest, not to a profile", "profiles", name, "count")
        _chain(draft, name, profile, "profiles")


def _chain(draft: Draft, name: str, start: GuestInput, section: str = "guests") -> list[Level] | None:
    """Return what is merged, in order: defaults, profiles from the most general, the entry; None when it is faulty."""
    profiles = draft.written.profiles
    chain, seen, level = [((section, name), start)], [name] if section == "profiles" else [], start
    while level.profile is not None:
        parent = level.profile
        if parent in seen:
            if section == "profiles":
                draft.fault(f"inherits from itself: {' -> '.join([*seen, parent])}", "profiles", name, "profile")
            return None
        if parent not in profiles:
            if level is start and not draft.knows("profiles", parent):
                draft.fault(
                    f"there is no profile {parent!r}{draft.nearest('profiles', parent)}", section, name, "profile"
                )
            return None
        seen.append(parent)
        level = profiles[parent]
        chain.append((("profiles", parent), level))
    return [(("defaults", ""), draft.written.defaults), *reversed(chain)]


def _check_references(draft: Draft, entry: str, merged: dict[str, Any]) -> None:
    for number, nic in enumerate(merged.get("nics", ())):
        name = nic["network"]
        if not draft.knows("networks", name):
            text = f"there is no network {name!r}{draft.nearest('networks', name)}"
            draft.fault(text, "guests", entry, "nics", number, "network")


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``over`` on top: mappings key by key, lists and scalars replaced; null takes a key away."""
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value)
        elif value is None:
            merged.pop(key, None)
        else:
            merged[key] = value
    return merged


def _complete(draft: Draft, entry: str, written: GuestInput, merged: dict[str, Any], partial: bool) -> None:
    missing = [key for key in ("image", "memory", "disks") if not merged.get(key)]
    if merged.get("memory") and "size" not in merged["memory"]:
        missing.append("memory.size")
    if missing:
        draft.halves.append((entry, _readable_nics(draft, merged)))
        places = f"its profile {written.profile} or the defaults" if written.profile else "a profile or the defaults"
        if not partial:
            draft.fault(f"lacks {', '.join(missing)}: write it here, in {places}", "guests", entry)
        return
    filled = _fill(draft, merged)
    for name in _names(entry, written.count):
        data = {**filled, "name": name}
        try:
            draft.guests.append((entry, GuestSpec.model_validate(data)))
        except ValidationError as error:
            draft.faults += [(("guests", entry, *path), text) for path, text in faults_of(error, GuestSpec, data)]


def _readable_nics(draft: Draft, merged: dict[str, Any]) -> tuple[NicSpec, ...]:
    """Return the NICs of a guest that lacks something else: they are checked all the same."""
    nics: list[NicSpec] = []
    for nic in _filled_nics(merged.get("nics", ()), draft.written.networks):
        with suppress(ValidationError):
            nics.append(NicSpec.model_validate(nic))
    return tuple(nics)


def _names(entry: str, count: int | None) -> Iterator[str]:
    """Yield the guests of an entry: itself, or ``web-01`` to ``web-12`` for a count."""
    if count is None:
        yield entry
        return
    width = max(2, len(str(count)))
    for number in range(1, count + 1):
        yield f"{entry}-{number:0{width}}"


def _fill(draft: Draft, merged: dict[str, Any]) -> dict[str, Any]:
    networks = draft.written.networks
    nics = _filled_nics(merged.get("nics", ()), networks)
    memory, cpus, ready = merged["memory"], merged.get("cpus", {}), merged.get("ready", {})
    count = cpus.get("count", 1)
    return {
        **merged,
        "memory": {"max": memory["size"], **memory},
        "cpus": {"count": count, "max": count, **cpus},
        "disks": tuple(
            {"id": f"data{number}" if number else "root", "pool": draft.written.host.pool, **_given(disk)}
            for number, disk in enumerate(merged["disks"])
        ),
        "nics": nics,
        "ready": {"by": "ssh" if _reachable(draft, nics) else "agent", **ready},
    }


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _filled_nics(nics: tuple[dict[str, Any], ...], networks: Mapping[str, NetworkSpec]) -> tuple[dict[str, Any], ...]:
    taken = {nic["id"] for nic in nics if nic.get("id")}
    filled = []
    for nic in nics:
        network = networks.get(nic["network"])
        address = "auto" if network is not None and network.subnet else "dhcp"
        filled.append({"id": _nic_id(nic["network"], taken), "address": address, **_given(nic)})
        taken.add(filled[-1]["id"])
    return tuple(filled)


def _nic_id(network: str, taken: set[str]) -> str:
    base = network.replace(".", "-")[:28]
    number = 1
    while (name := base if number == 1 else f"{base}-{number}") in taken:
        number += 1
    return name


def _reachable(draft: Draft, nics: tuple[dict[str, Any], ...]) -> bool:
    """Whether an address of the guest is known beforehand, so that SSH can be asked."""
    for nic in nics:
        network = draft.written.networks.get(nic["network"])
        if network is None or network.type == "user":
            return True
        if network.reach != "agent" and nic["address"] not in ("dhcp", "none"):
            return True
    return False
