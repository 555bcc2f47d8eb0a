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
        started = systemd and any(file.path.endswith(TIMER) for file in files) and self._started()
        return ObservedTimers(systemd, self._at(CRON).parent.is_dir(), tuple(files), tuple(foreign), started)

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

    def start(self, timer: str) -> None:
        self._check_there(timer)
        self._systemctl("enable", "--quiet", timer)
        if self._runs:
            self._systemctl("start", timer)

    def stop(self, timer: str) -> None:
        self._check_there(timer)
        if self._runs:
            self._systemctl("stop", timer)
        self._systemctl("disable", "--quiet", timer)

    def _at(self, path: str) -> Path:
        return self._root / path.removeprefix("/")

    def _read(self, path: str) -> str | None:
        """Return the text of a file that is ours; a link is nobody's but the operator's."""
        file = self._at(path)
        if file.is_symlink() or not file.is_file():
            return None
        with os_errors(file, "read"):
            text = file.read_text(errors="replace")
        return text if text.split("\n", 1)[0] == MARK else None

    def _check_ours(self, path: str) -> None:
        if _is_there(self._at(path)) and self._read(path) is None:
            raise AlreadyThere("it is not vmhost's", subject=path, hint=f"mv {path} {path}.old")

    def _check_there(self, timer: str) -> None:
        if self._read(f"{UNITS}/{timer}") is None:
            raise Absent("there is no such timer", subject=timer, hint="vmhost nightly install --dry-run")

    def _started(self) -> bool:
        asked = ("is-enabled", "is-active") if self._runs else ("is-enabled",)
        return all(self._systemctl(verb, "--quiet", TIMER, check=False).code == 0 for verb in asked)

    def _reload(self, path: str) -> None:
        if self._runs and path.startswith(UNITS) and has_systemd():
            self._systemctl("daemon-reload")

    def _systemctl(self, *words: str, check: bool = True) -> Completed:
        root = [] if self._runs else [f"--root={self._root}"]
        return run(["systemctl", *root, *words], timeout=60, check=check)


def _is_there(path: Path) -> bool:
    return path.is_symlink() or path.exists()
