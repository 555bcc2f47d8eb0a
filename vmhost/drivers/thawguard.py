"""``snapports.ThawGuards``: a process beside us that thaws a guest when we die, or when its freeze lasts too long.

Who froze a guest holds the lock of a file. The kernel lets go of it when its owner dies, and who has thawed removes the
file first: that is all that the helper (:mod:`vmhost.helpers.thaw`) looks at.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path

from vmhost.drivers.files import make_private_directory, os_errors
from vmhost.drivers.helperprogram import helper_program, start_beside_us
from vmhost.model.layout import Layout


class ProcessThawGuards:
    """Guards that are processes of this machine.

    :param uri: asked for the hypervisor's own URI when a guard is set up.
    """

    def __init__(self, layout: Layout, uri: Callable[[], str]) -> None:
        self._directory = layout.runtime / "frozen"
        self._uri = uri

    def arm(self, uuid: str, seconds: float) -> ProcessThawGuard:
        path = make_private_directory(self._directory) / uuid
        guard = ProcessThawGuard(path)
        try:
            program = helper_program("thaw", self._uri(), uuid, str(path), f"{seconds:g}")
            description = f"thaws guest {uuid} if nobody else does"
            start_beside_us(program, f"vmhost-thaw-{uuid[:8]}", description)
        except BaseException:
            guard.dismiss()
            raise
        return guard


class ProcessThawGuard:
    """The lock of a file, held from the start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        unseen = path.with_name(f".{path.name}")
        with os_errors(path, "make"):
            self._file = unseen.open("wb")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Also in place of one of somebody who was killed: a guard of that may look at this name at any moment.
            unseen.replace(path)

    def dismiss(self) -> None:
        if self._file.closed:
            return
        with self._file, os_errors(self._path, "remove"):
            self._path.unlink(missing_ok=True)
