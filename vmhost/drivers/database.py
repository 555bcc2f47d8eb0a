"""A small SQLite database that several processes share: made whole, opened late, moved aside when it is damaged."""

from __future__ import annotations

import grp
import logging
import os
import shlex
import sqlite3
import stat
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

from vmhost.drivers.files import make_directory, os_errors
from vmhost.model.errors import DriverError, PermissionDenied

Work = Callable[[sqlite3.Connection], "T"]
T = TypeVar("T")

_BUSY_SECONDS: Final = 5.0
_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_log = logging.getLogger("vmhost.database")


class _Unfit(sqlite3.DatabaseError):
    """The file is a database, yet none of ours."""


class Database:
    """One database file in WAL mode; safe to use from several threads and processes.

    :param schema: the statements that make its tables.
    :param version: of the schema, from 1, kept in ``user_version``; a file of a newer one is left alone.
    """

    def __init__(self, path: Path, *, schema: str, version: int) -> None:
        self.path = path
        self._schema = schema
        self._version = version
        self._guard = threading.RLock()
        self._connection: sqlite3.Connection | None = None

    def write(self, work: Work[T]) -> T:
        """Do the work in one transaction that is committed; the file is made when it is missing.

        :raises DriverError: it cannot be written; nothing is changed.
        """
        with self._guard:
            return self._mended(lambda: self._transact(work, "BEGIN IMMEDIATE"))

    def read(self, work: Work[T]) -> T | None:
        """Do the work in one transaction that sees one state, or return None when there is no file.

        :raises DriverError: it cannot be read.
        """
        with self._guard:
            with os_errors(self.path, "read"):
                there = self.path.exists()
            if not there:
                return None
            return self._mended(lambda: self._transact(work, "BEGIN"))

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        with self._guard:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _mended(self, act: Callable[[], T]) -> T:
        try:
            try:
                return act()
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
            # Another process may have moved the damaged file aside already: look once more before doing so.
            self.close()
            try:
                return act()
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._move_aside(error)
            return act()
        except OSError:
            self.close()
            with os_errors(self.path, "open"):
                raise
        except sqlite3.Error as error:
            self.close()
            hint = f"ls -l {shlex.quote(str(self.path))}"
            raise DriverError(str(error), subject=str(self.path), hint=hint, retryable=_is_busy(error)) from error

    def _transact(self, work: Work[T], begin: str) -> T:
        connection = self._connection = self._connection or self._open()
        connection.execute(begin)
        try:
            result = work(connection)
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
        return result

    def _open(self) -> sqlite3.Connection:
        if not self.path.exists():
            self._make()
        self._tighten()
        connection = _connect(self.path)
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA synchronous = NORMAL")
            found = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if found == 0:
                raise _Unfit("file is not a database of vmhost")
            if found > self._version:
                raise DriverError(
                    f"a newer vmhost wrote this file (schema {found}, this one knows {self._version})",
                    subject=str(self.path),
                    hint="vmhost --version",
                )
        except BaseException:
            connection.close()
            raise
        return connection

    def _tighten(self) -> None:
        """Restrict a file that an older vmhost made for everybody to read, with what SQLite keeps beside it."""
        status = self.path.stat()
        if status.st_uid == os.geteuid() and status.st_mode & stat.S_IRWXO:
            for suffix in ("-wal", "-shm", ""):
                with suppress(FileNotFoundError):
                    _restrict(self.path.with_name(self.path.name + suffix))

    def _make(self) -> None:
        """Make the file under another name and give it its own when it is whole: nobody ever opens half a schema."""
        make_directory(self.path.parent)
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}-{threading.get_native_id()}.tmp")
        draft.unlink(missing_ok=True)
        try:
            with closing(sqlite3.connect(draft, isolation_level=None)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(f"BEGIN; {self._schema}; PRAGMA user_version = {self._version}; COMMIT;")
            _restrict(draft)
            with suppress(FileExistsError):
                os.link(draft, self.path)
        finally:
            draft.unlink(missing_ok=True)

    def _move_aside(self, error: sqlite3.DatabaseError) -> None:
        self.close()
        aside = self.path.with_name(f"{self.path.name}.damaged-{int(time.time())}")
        with os_errors(self.path, "move aside"):
            self.path.replace(aside)
            for suffix in ("-wal", "-shm"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        _log.warning("%s: %s; moved aside to %s", self.path, error, aside.name)


def _restrict(path: Path) -> None:
    """Let only its owner read a file, which quotes guests; of root's also those who may look at its hypervisor.

    SQLite gives the files that it makes beside a database the same owner, group and mode.
    """
    path.chmod(0o600)
    group = _onlookers() if os.geteuid() == 0 else None
    if group is not None:
        with suppress(OSError):  # in a user namespace it may be nobody's
            os.chown(path, -1, group)
            path.chmod(0o640)


def _onlookers() -> int | None:
    """Return the group whose members libvirt lets in, if there is one."""
    try:
        return grp.getgrnam("libvirt").gr_gid
    except KeyError:
        return None


def _connect(path: Path) -> sqlite3.Connection:
    if not os.access(path, os.R_OK):
        text = "only its owner and the group libvirt may read it"
        raise PermissionDenied(text, subject=str(path), hint="sudo vmhost job list")
    if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        return _connected(path, "mode=rw")
    connection = _connected(path, "mode=ro")
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        # No writer has it open, so its WAL is gone and only a writer could make one: the file alone is all there is
        # (https://www.sqlite.org/wal.html, read-only databases).
        connection.close()
        return _connected(path, "immutable=1")
    return connection


def _connected(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"file:{quote(str(path))}?{mode}"
    return sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    return isinstance(error, _Unfit) or getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE


def _is_busy(error: BaseException) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
