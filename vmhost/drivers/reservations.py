"""``ports.Reservations`` as one JSON file: whole or not there, with version and checksum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from vmhost.drivers.files import read_state, write_state
from vmhost.model.errors import Absent, DamagedData
from vmhost.model.layout import Layout
from vmhost.model.reservations import Reservation, keep

VERSION: Final = 1
_FIELDS: Final = frozenset(field.name for field in fields(Reservation))


class FileReservations:
    """What is reserved on one hypervisor's host, in ``state/reservations.json``; whoever changes it holds its lock."""

    def __init__(self, layout: Layout) -> None:
        self.file = layout.state / "state" / "reservations.json"

    def read(self) -> tuple[Reservation, ...]:
        """Return all of them, in order. :raises DamagedData: the file is torn, edited, or of a newer vmhost."""
        try:
            found = read_state(self.file, newest=VERSION).data.get("reservations", [])
        except Absent:
            return ()
        try:
            return tuple(_read(entry) for entry in found)
        except (TypeError, ValueError) as error:
            hint = f"mv {self.file} {self.file}.damaged"
            raise DamagedData("it holds what is no reservation", subject=str(self.file), hint=hint) from error

    def keep(self, items: Sequence[Reservation], now: str) -> None:
        """Add or replace. :raises AlreadyThere: another holds one of them; nothing was changed."""
        self._write(keep(self.read(), items, now))

    def drop(self, items: Sequence[Reservation]) -> None:
        """Forget; those that are not there are fine."""
        keys = {item.key for item in items}
        have = self.read()
        left = [item for item in have if item.key not in keys]
        if len(left) != len(have):
            self._write(left)

    def _write(self, items: Iterable[Reservation]) -> None:
        ordered = sorted(items, key=_order)
        # Nothing in it is secret, and who may only look is shown it too.
        write_state(self.file, {"reservations": [_written(item) for item in ordered]}, version=VERSION, mode=0o644)


def _order(item: Reservation) -> tuple[str, str, int, str]:
    return item.kind, item.realm, len(item.value), item.value


def _written(item: Reservation) -> dict[str, str]:
    return {name: value for name in _FIELDS if (value := getattr(item, name))}


def _read(entry: Mapping[str, Any]) -> Reservation:
    """Return one entry. :raises TypeError, ValueError: it is none."""
    if not all(isinstance(value, str) for value in entry.values()) or entry.get("kind") not in ("vlan", "address"):
        raise ValueError("not a reservation")
    return Reservation(**{name: value for name, value in entry.items() if name in _FIELDS})
