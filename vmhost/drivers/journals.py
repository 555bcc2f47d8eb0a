"""Journals: one file of JSON lines for each operation, on the disk before and after every step.

A journal belongs to the process that holds its flock(2); it is *open*, that is left behind, when nobody does. So there
are no process ids to be believed. Every line carries the version, the operation's id, its number and a checksum::

    {"n": 0, "record": {...}, "sha256": "...", "tx": "ID", "v": 1}
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vmhost.drivers.files import checksum, os_errors, spelled, sync_directory, write_all
from vmhost.drivers.layout import journal_directory
from vmhost.model.errors import DamagedData, UsageError
from vmhost.model.layout import Layout

if TYPE_CHECKING:
    from vmhost.ports import OpenJournal

VERSION: Final = 1
_SUFFIX: Final = ".jsonl"
_GATE: Final = ".gate"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class FileJournal:
    """One operation's journal, held by this process until it is closed."""

    def __init__(self, path: Path, handle: int, *, number: int = 0, size: int = 0) -> None:
        self._path = path
        self._handle: int | None = handle
        self._number = number
        self._size = size
        # One that is forgotten without being closed is as open as if its owner had died.
        self._dropped = weakref.finalize(self, os.close, handle)
        self._dropped.atexit = False

    def append(self, record: Mapping[str, Any], *, durable: bool = True) -> None:
        """Write one record and, if ``durable``, wait until it and those before are on the disk.

        After an error the journal is as it was before. What is not durable yet a power cut may take, a kill cannot.

        :raises DriverError: the disk is full or failed.
        :raises TypeError: the record is not JSON.
        :raises ValueError: the journal is closed.
        """
        handle = self._open()
        line = _line(self._path.stem, self._number, record)
        with os_errors(self._path, "write"):
            try:
                write_all(handle, line)
                if durable:
                    os.fdatasync(handle)
            except BaseException:
                os.ftruncate(handle, self._size)
                raise
        self._number += 1
        self._size += len(line)

    def close(self, *, done: bool) -> None:
        """Release the journal; ``done`` removes its file, otherwise it is open for whoever recovers.

        A second call does nothing.
        """
        if self._handle is None:
            return
        handle, self._handle = self._handle, None
        self._dropped.detach()
        try:
            if done:
                with os_errors(self._path, "remove"):
                    # While the lock is still ours: nobody can claim what is finished.
                    self._path.unlink(missing_ok=True)
                    sync_directory(self._path.parent)
        finally:
            _unlock_and_close(handle)

    def _open(self) -> int:
        if self._handle is None:
            raise ValueError(f"journal {self._path.stem} is closed")
        return self._handle


class FileJournals:
    """The journals of one hypervisor, in ``journal/`` of its state directory."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def begin(self, id: str) -> FileJournal:  # noqa: A002 - the port's word
        """Begin the journal of a new operation; it exists on the disk, and is ours, when this returns.

        :raises AlreadyThere: an operation of that id left its journal.
        :raises DriverError: the disk is full or failed.
        """
        if not _ID.fullmatch(id):
            raise UsageError(f"{id[:80]!r} cannot be the id of a journal")
        directory = journal_directory(self._layout)
        path = directory / f"{id}{_SUFFIX}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        with os_errors(path, "begin the journal"), _gate(directory):
            handle = os.open(path, flags, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                sync_directory(directory)
            except BaseException:
                path.unlink()
                os.close(handle)
                raise
        return FileJournal(path, handle)

    def any_open(self) -> bool:
        """Whether an owner died and left its journal; a user who may not look at journals is told False."""
        directory = self._layout.state / "journal"
        with os_errors(directory, "look for open journals"):
            try:
                names = _journal_names(directory)
                if not names:
                    return False
                with _gate(directory):
                    return any(_is_open(directory / name) for name in names)
            except (FileNotFoundError, PermissionError):
                return False

    def claim_open(self) -> tuple[OpenJournal, ...]:
        """Take over every journal whose owner is dead, oldest first; those of living owners are not touched.

        :raises DamagedData: one is torn in the middle, or from a newer vmhost; then none is taken.
        """
        directory = journal_directory(self._layout)
        claimed: list[OpenJournal] = []
        with os_errors(directory, "read the journals"), _gate(directory):
            try:
                for name in _journal_names(directory):
                    journal = _claim(directory / name)
                    if journal is not None:
                        claimed.append(journal)
            except BaseException:
                for journal in claimed:
                    journal.writer.close(done=False)
                raise
        return tuple(claimed)


@contextmanager
def _gate(directory: Path) -> Iterator[None]:
    """Let one process at a time begin, look and claim: who looks must not be taken for an owner, nor be in the way."""
    handle = os.open(directory / _GATE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        _unlock_and_close(handle)


def _unlock_and_close(handle: int) -> None:
    # Unlocked by name: a process that was forked in between has a copy of the handle, and would keep the lock.
    try:
        fcntl.flock(handle, fcntl.LOCK_UN)
    finally:
        os.close(handle)


def _journal_names(directory: Path) -> list[str]:
    with os.scandir(directory) as entries:
        found = [entry for entry in entries if entry.name.endswith(_SUFFIX) and not entry.name.startswith(".")]
        # One that is finished in this moment is gone: it has no time, and no one to recover it.
        times = [(_changed(entry), entry.name) for entry in found]
    return [name for changed, name in sorted(times) if changed]


def _changed(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_mtime_ns
    except FileNotFoundError:
        return 0


def _try_lock(path: Path, flags: int) -> int | None:
    """Return a handle that holds the lock of a journal, or None when it has a living owner or is finished."""
    try:
        handle = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(handle).st_nlink:
            return handle
    except BlockingIOError:
        pass
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


def _is_open(path: Path) -> bool:
    handle = _try_lock(path, os.O_RDONLY)
    if handle is None:
        return False
    _unlock_and_close(handle)
    return True


def _claim(path: Path) -> OpenJournal | None:
    handle = _try_lock(path, os.O_RDWR | os.O_APPEND)
    if handle is None:
        return None
    try:
        records, size = _read(path, handle)
        os.ftruncate(handle, size)
    except BaseException:
        os.close(handle)
        raise
    # Imported here: whoever only asks whether there is a journal, as every command does, needs no ports.
    from vmhost.ports import OpenJournal

    writer = FileJournal(path, handle, number=len(records), size=size)
    return OpenJournal(id=path.stem, records=records, writer=writer)


def _read(path: Path, handle: int) -> tuple[tuple[Mapping[str, Any], ...], int]:
    """Return the records of a journal and the size of what is whole of it."""
    with os.fdopen(os.dup(handle), "rb") as file:
        text = file.read()
    whole, _, torn = text.rpartition(b"\n")
    # A last line without its end is a write that never returned: nothing was done on its strength.
    size = len(text) - len(torn)
    lines = whole.split(b"\n") if size else []
    return tuple(_record(path, number, line) for number, line in enumerate(lines)), size


def _line(operation: str, number: int, record: Mapping[str, Any]) -> bytes:
    body = {"v": VERSION, "tx": operation, "n": number, "record": dict(record)}
    return spelled({**body, "sha256": checksum(body)}) + b"\n"


def _record(path: Path, number: int, line: bytes) -> Mapping[str, Any]:
    try:
        entry = json.loads(line)
        version = entry["v"]
        if isinstance(version, int) and version > VERSION:
            raise _newer(path, version)
        found, record = entry.pop("sha256"), entry["record"]
        ours = (entry["tx"], entry["n"]) == (path.stem, number)
        good = ours and found == checksum(entry) and isinstance(record, dict)
    except (ValueError, KeyError, TypeError, AttributeError):
        good, record = False, {}
    if not good:
        quoted = shlex.quote(str(path))
        raise DamagedData(
            f"line {number + 1} of the journal is damaged; what it says was not acted on",
            subject=str(path),
            hint=f"mv {quoted} {shlex.quote(f'{path}.damaged')}",
        )
    return dict(record)


def _newer(path: Path, version: int) -> DamagedData:
    return DamagedData(
        f"a newer vmhost wrote this journal (format {version}, this one reads up to {VERSION})",
        subject=str(path),
        hint="vmhost --version",
    )
