"""Looks of probes in SQLite: the newest of each probe, over processes and restarts of the watch."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from vmhost.drivers.database import Database
from vmhost.model.errors import DriverError
from vmhost.model.services import KeptLook

KEPT: Final = 1000
"""Looks that are kept of each probe."""

KEPT_SECONDS: Final = 30 * 86400.0
"""After that long a look goes, also of what is no longer looked at."""

_log = logging.getLogger("vmhost.history")

_SCHEMA: Final = """
CREATE TABLE look (
    guest TEXT NOT NULL, service TEXT NOT NULL, probe TEXT NOT NULL, number INTEGER NOT NULL,
    at REAL NOT NULL, good INTEGER NOT NULL, seconds REAL NOT NULL, text TEXT NOT NULL,
    PRIMARY KEY (guest, service, probe, number)
) WITHOUT ROWID;
CREATE INDEX look_at ON look (at);
"""
_LAST: Final = "SELECT coalesce(max(number), 0) FROM look WHERE guest = ? AND service = ? AND probe = ?"
_INSERT: Final = """
INSERT INTO look (guest, service, probe, number, at, good, seconds, text) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
_PRUNE: Final = "DELETE FROM look WHERE guest = ? AND service = ? AND probe = ? AND number <= ?"
_READ: Final = """
SELECT guest, service, probe, at, good, seconds, text FROM look ORDER BY guest, service, probe, number
"""
_READ_ONE: Final = """
SELECT guest, service, probe, at, good, seconds, text FROM look WHERE guest = ? AND service = ? ORDER BY probe, number
"""
# SQLite takes the other columns from the row of the maximum (https://sqlite.org/lang_select.html, bare columns).
_LATEST: Final = """
SELECT guest, service, probe, at, good, seconds, text FROM (
    SELECT *, max(number) FROM look WHERE at >= ? GROUP BY guest, service, probe
) ORDER BY guest, service, probe
"""


class LookHistory:
    """The looks of one hypervisor's probes, in a file of their own: losing them costs nothing else.

    :param kept: how many of each probe are kept.
    """

    def __init__(self, path: Path, *, kept: int = KEPT) -> None:
        self._database = Database(path, schema=_SCHEMA, version=1)
        self._kept = kept

    def add(self, looks: Sequence[KeptLook]) -> None:
        """Keep looks, the oldest first; where that fails it is logged, and nothing else stops."""

        def insert(database: sqlite3.Connection) -> None:
            for look in looks:
                key = (look.guest, look.service, look.probe)
                number = database.execute(_LAST, key).fetchone()[0] + 1
                database.execute(_INSERT, (*key, number, look.at, look.good, look.seconds, look.text))
                database.execute(_PRUNE, (*key, number - self._kept))
            database.execute("DELETE FROM look WHERE at < ?", [looks[-1].at - KEPT_SECONDS])

        try:
            self._database.write(insert)
        except DriverError as error:
            _log.warning("history of probes: %s", error)

    def read(self, guest: str = "", service: str = "") -> tuple[KeptLook, ...]:
        """Return all looks, or those of a service in a guest, probe by probe, the oldest first.

        :raises DriverError: they cannot be read.
        """
        return self._select(_READ_ONE, guest, service) if guest else self._select(_READ)

    def last(self, since: float) -> tuple[KeptLook, ...]:
        """Return the newest look of each probe since a time. :raises DriverError: they cannot be read."""
        return self._select(_LATEST, since)

    def _select(self, statement: str, *values: float | str) -> tuple[KeptLook, ...]:
        def read(database: sqlite3.Connection) -> tuple[KeptLook, ...]:
            rows = database.execute(statement, values).fetchall()
            return tuple(
                KeptLook(guest, service, probe, at, bool(good), seconds, text)
                for guest, service, probe, at, good, seconds, text in rows
            )

        return self._database.read(read) or ()

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        self._database.close()
