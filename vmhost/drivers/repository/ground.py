"""The ground that a repository stands on: whether it is one, whether it is mounted, which host this is."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from vmhost.drivers.files import make_directory, os_errors, read_state, write_atomically, write_state
from vmhost.drivers.repository import manifest, places, readme
from vmhost.model.errors import Absent, AlreadyThere, DamagedData, DriverError, Refused
from vmhost.model.points import RepositoryId

MAJOR: Final = 1
_KNOWN: Final = "repositories.json"
_HOST: Final = "host-id.json"
_MACHINE: Final = Path("/etc/machine-id")
_FSTAB: Final = Path("/etc/fstab")
_TEMPORARY: Final = re.compile(rf"\.({re.escape(places.README)}|{places.FORMAT})\.\d+-\d+\.tmp")
_MODE: Final = 0o711
"""QEMU, as a user of its own, has to reach files that it may write; it need not list what there is."""


class Ground:
    """Recognises repositories; what was seen once is noted, so that an empty mount point is never taken for a new one.

    :param state: the directory of our state.
    """

    def __init__(self, state: Path) -> None:
        self._state = state

    def look(self, path: str, new_id: str) -> RepositoryId:
        """See :meth:`vmhost.backupports.Repositories.look`."""
        place = Path(path)
        known = id_at(place)
        if known:
            _refuse_unmounted(place)  # what lies below a mount point is another repository than the one meant
            self._note(path, known)
            return RepositoryId(path, known, self.host(), free=free_at(place), writable=os.access(place, os.W_OK))
        self._refuse_ground(place)
        return RepositoryId(path, new_id, self.host(), known=False, free=free_at(place), writable=_writable(place))

    def make(self, path: str, new_id: str) -> None:
        """Make a repository: what it is, and how to use it without us. Of several hosts that do so one makes it."""
        place = Path(path)
        if not id_at(place):
            self._refuse_ground(place)
        make_directory(place, mode=_MODE, durable=True)
        lock = places.locked(place / places.LOCK, path, "makes this repository")
        with os_errors(place, "make a repository"), lock:
            if id_at(place):
                raise AlreadyThere("there is a repository", subject=path, hint="vmhost backup list")
            write_atomically(place / places.README, readme.TEXT.encode(), mode=0o644)
            digest = hashlib.sha256(readme.TEXT.encode()).hexdigest()
            write_state(place / places.FORMAT, {"id": new_id, "readme": digest}, version=MAJOR, mode=0o644)
        self._note(path, new_id)

    def host(self) -> str:
        """Return the id under which this host has its place in repositories: it does not change while its system lives.

        Machine ids are not to be shown around (machine-id(5)), so it is a hash of it.
        """
        with suppress(OSError):
            machine = _MACHINE.read_text().strip()
            if re.fullmatch(r"[0-9a-f]{32}", machine):
                return hashlib.sha256(f"a repository of vmhost on {machine}".encode()).hexdigest()[:16]
        path = self._state / _HOST
        with suppress(Absent):
            return str(read_state(path, newest=1).data["id"])
        drawn = uuid4().hex[:16]
        write_state(path, {"id": drawn}, version=1)
        return drawn

    def _note(self, path: str, found: str) -> None:
        """Remember that a repository was here; that it cannot be noted keeps nobody from reading it."""
        seen = self._seen()
        if seen.get(path) != found:
            with suppress(DriverError):
                write_state(self._state / _KNOWN, {**seen, path: found}, version=1)

    def _seen(self) -> dict[str, str]:
        try:
            return {str(key): str(value) for key, value in read_state(self._state / _KNOWN, newest=1).data.items()}
        except DriverError:
            return {}

    def _refuse_ground(self, place: Path) -> None:
        """:raises Refused: what is not mounted, or holds something else, is no place for a new repository."""
        if not place.is_absolute():
            raise Refused("is not an absolute path", subject=str(place), hint="vmhost backup list --repository /PATH")
        quoted = shlex.quote(str(place))
        if str(place) in self._seen():
            text = "the repository that was here is gone: its file system is not mounted, or it was moved"
            raise Refused(text, subject=str(place), hint=f"findmnt --target {quoted}")
        _refuse_unmounted(place)
        with os_errors(place, "look into"):
            strange = place.exists() and (not place.is_dir() or not all(map(_begun, place.iterdir())))
            if strange and not id_at(place):  # another host may have made it since we looked
                text = "holds something else than a repository of backups"
                raise Refused(text, subject=str(place), hint=f"ls -la {quoted}")


def id_at(place: Path) -> str:
    """Return the id of the repository at a place, or empty when there is none.

    :raises DamagedData: what says so is damaged; :raises Refused: the repository is a newer vmhost's.
    """
    try:
        found = str(_format(place).get("id", ""))
    except Absent:
        return ""
    if not re.fullmatch(r"[0-9a-f-]{36}", found):
        raise DamagedData("names no repository", subject=str(place / places.FORMAT), hint="vmhost backup verify --all")
    return found


def readme_is_ours(place: Path) -> bool:
    """Whether the README is the file that its repository was made with, not a link to one that says the same."""
    wanted = _format(place).get("readme")
    try:
        return hashlib.sha256(manifest.read_text(place / places.README).encode()).hexdigest() == wanted
    except (Absent, DamagedData):
        return False


def _format(place: Path) -> dict[str, Any]:
    path = place / places.FORMAT
    try:
        return manifest.data_in(path, manifest.read_text(path), newest=MAJOR)
    except manifest.Newer as error:
        raise Refused(error.message, subject=error.subject, hint=error.hint) from error


def _begun(entry: Path) -> bool:
    """Whether this is what a vmhost leaves that was killed while it made a repository, or has while it makes one."""
    if entry.name == places.LOCK:
        return entry.is_file() and not entry.is_symlink()
    if entry.name != places.README:
        return _TEMPORARY.fullmatch(entry.name) is not None
    try:
        return manifest.read_text(entry) == readme.TEXT
    except DamagedData:
        return False


def _refuse_unmounted(place: Path) -> None:
    if unmounted := _unmounted(place):
        text = f"{unmounted} is not mounted; nothing is written below a mount point"
        raise Refused(text, subject=str(place), hint=f"mount {shlex.quote(unmounted)}")


def _unmounted(place: Path) -> str:
    """Return the mount point of fstab(5) at or above a place that nothing is mounted on, or empty."""
    try:
        lines = _FSTAB.read_text().splitlines()
    except OSError:
        return ""
    points = [words[1] for line in lines if len(words := line.split("#")[0].split()) > 2]
    for point in points:
        if point.startswith("/") and place.is_relative_to(point) and not os.path.ismount(point):
            return point
    return ""


def free_at(place: Path) -> int:
    """Return how many bytes are free at a place that is yet to be made, or is there; 0: nobody knows."""
    with suppress(OSError):
        return shutil.disk_usage(_existing(place)).free
    return 0


def _writable(place: Path) -> bool:
    return os.access(_existing(place), os.W_OK)


def _existing(place: Path) -> Path:
    return next(path for path in (place, *place.parents) if path.exists())
