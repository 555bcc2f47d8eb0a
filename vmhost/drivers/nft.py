"""``ports.Packet`` through the program ``nft``: our own table, in transactions."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from vmhost.drivers.command import CommandFailed, run
from vmhost.drivers.files import os_errors

LOCK: Final = Path("/run/vmhost-nft.lock")
_TIMEOUT: Final = 20.0
_LIST: Final = ("nft", "--json", "list", "table", "bridge", "vmhost")
_HINT: Final = "vmhost host doctor --only network"


class Nft:
    """The table ``bridge vmhost`` of the network namespace that we are in.

    The lock keeps one vmhost or hook from taking the table away while another writes into it. Its file is made by the
    first that writes, in a directory that a reboot empties as it empties the kernel: without it there is no table.
    """

    def __init__(self, lock: Path = LOCK) -> None:
        self._lock = lock

    def table(self) -> str:
        """Return our table as JSON; empty where there is none, and for who may not look."""
        if os.geteuid() != 0 or not self._lock.exists():
            return ""
        done = run(_LIST, timeout=_TIMEOUT, check=False)
        if done.code == 0:
            return done.text
        if b"No such file" in done.stderr:
            return ""
        raise CommandFailed("nft", done.stderr.decode(errors="replace").strip(), code=done.code, hint=_HINT)

    def change(self, make: Callable[[str], str], *, look: bool = True) -> None:
        """Send what ``make`` makes of our table, if anything, as one transaction; nobody else writes meanwhile.

        :param look: False: ``make`` gets an empty text, and nobody is asked.
        :raises CommandFailed: nothing of it was done. :raises Absent: nft is not installed.
        """
        with self._locked():
            batch = make(self.table() if look else "")
            if batch:
                run(("nft", "--json", "--file", "-"), timeout=_TIMEOUT, input=batch.encode(), hint=_HINT)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with os_errors(self._lock, "lock"):
            handle = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                yield
            finally:
                os.close(handle)
