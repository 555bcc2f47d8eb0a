"""``ports.Timers``: units of systemd and a file for cron, which wake the night's work."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from vmhost.drivers.command import Completed, run
from vmhost.drivers.files import make_directory, os_errors, sync_directory, write_atomically
from vmhost.drivers.netunit import has_systemd
from vmhost.model.errors import Absent, AlreadyThere, UsageError
from vmhost.model.nightsteps import CRON, FILES, MARK, TIMER, UNITS, ObservedTimers, TimerFile

_TIMER: Final = f"{UNITS}/{TIMER}"
_SEARCHED: Final = ("/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system")
"""Where units of the same names would be another's, which ours would hide or be hidden by (systemd.unit(5))."""


class SystemTimers:
    """The timers of this machine.

    :param root: the directory that stands for ``/``; below any other, systemd is taken to be there and not to run.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._runs = root == Path("/")

    def state(self) -> ObservedTimers:
        files, foreign = list[TimerFile](), list[str]()
        for name in FILES:
            text = self._read(name)
            if text is not None:
                files.append(TimerFile(name, text))
            elif _is_there(self._at(name)):
                foreign.append(name)
            if name.startswith(UNITS):
                others = (f"{place}/{Path(name).name}" for place in _SEARCHED)
                foreign += [other for other in others if _is_there(self._at(other))]
        systemd = has_systemd() or not self._runs
        ours = any(file.path == _TIMER for file in files) or not any(Path(path).name == TIMER for path in foreign)
        boot, now = (self._boots(TIMER), self._waits(TIMER)) if systemd and ours else (False, False)
        return ObservedTimers(systemd, self._at(CRON).parent.is_dir(), tuple(files), tuple(foreign), boot, now)

    def check(self, files: Sequence[TimerFile]) -> None:
        with tempfile.TemporaryDirectory(prefix="vmhost-units-") as directory:
            paths = [Path(directory) / Path(file.path).name for file in files]
            for path, file in zip(paths, files, strict=True):
                path.write_text(file.text)
            done = run(["systemd-analyze", "verify", *map(str, paths)], timeout=60, check=False)
        # What it says of other units of this machine is not about ours.
        names = [path.name for path in paths]
        lines = done.stderr.decode(errors="replace").splitlines()
        said = [line for line in lines if any(name in line for name in names)]
        if said:
            text = said[0].replace(f"{directory}/", "")
            raise UsageError(f"systemd does not take the unit: {text}", hint="vmhost nightly units --at 22:00")

    def put(self, file: TimerFile) -> None:
        self._check_ours(file.path)
        path = self._at(file.path)
        make_directory(path.parent)
        write_atomically(path, file.text.encode(), mode=0o644)
        self._reload(file.path)

    def drop(self, path: str) -> None:
        self._check_ours(path)
        file = self._at(path)
        with os_errors(file, "remove"):
            file.unlink()
        sync_directory(file.parent)
        self._reload(path)

    def start(self, timer: str, *, boot: bool = True, now: bool = True) -> None:
        if self._read(f"{UNITS}/{timer}") is None:
            raise _no_timer(timer)
        if boot:
            self._systemctl("enable", "--quiet", timer)
        if now and self._runs:
            self._systemctl("start", timer)

    def stop(self, timer: str, *, boot: bool = True, now: bool = True) -> None:
        path = f"{UNITS}/{timer}"
        self._check_ours(path)
        there = self._read(path) is not None
        if not (there or self._boots(timer) or self._waits(timer)):
            raise _no_timer(timer)
        if now and self._runs:
            self._systemctl("stop", timer)
        if boot and there:
            self._systemctl("disable", "--quiet", timer)
        elif boot:  # systemd disables nothing whose file is gone
            with os_errors(self._link(timer), "remove"):
                self._link(timer).unlink(missing_ok=True)
            self._reload(path)

    def _at(self, path: str) -> Path:
        return self._root / path.removeprefix("/")

    def _read(self, path: str) -> str | None:
        """Return the text of a file that is ours; a link is nobody's but the operator's."""
        file = self._at(path)
        if not _is_there(file) or file.is_symlink() or not file.is_file():
            return None
        with os_errors(file, "read"):
            text = file.read_text(errors="replace")
        return text if text.split("\n", 1)[0] == MARK else None

    def _check_ours(self, path: str) -> None:
        if _is_there(self._at(path)) and self._read(path) is None:
            raise AlreadyThere("it is not vmhost's", subject=path, hint=f"mv {path} {path}.old")

    def _link(self, timer: str) -> Path:
        return self._at(f"{UNITS}/timers.target.wants/{timer}")

    def _boots(self, timer: str) -> bool:
        asked = self._systemctl("is-enabled", "--quiet", timer, check=False)
        return asked.code == 0 or self._link(timer).is_symlink()

    def _waits(self, timer: str) -> bool:
        """Whether a timer waits; where systemd does not run, one does that is started at boot."""
        if not self._runs:
            return self._boots(timer)
        return self._systemctl("is-active", "--quiet", timer, check=False).code == 0

    def _reload(self, path: str) -> None:
        if self._runs and path.startswith(UNITS) and has_systemd():
            self._systemctl("daemon-reload")

    def _systemctl(self, *words: str, check: bool = True) -> Completed:
        root = [] if self._runs else [f"--root={self._root}"]
        return run(["systemctl", *root, *words], timeout=60, check=check)


def _is_there(path: Path) -> bool:
    with os_errors(path, "look at"):
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
    return True


def _no_timer(timer: str) -> Absent:
    return Absent("there is no such timer", subject=timer, hint="vmhost nightly install --dry-run")
