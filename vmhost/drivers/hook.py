"""The hook in libvirt's configuration: a file of ours beside those of others, and the daemon that has to know it."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vmhost.drivers.command import ProcessWatch, run
from vmhost.drivers.files import make_directory, os_errors, write_atomically
from vmhost.model.errors import AlreadyThere, DriverError, Refused
from vmhost.model.identity import NAMESPACE
from vmhost.model.observed import ObservedHook

FILE: Final = Path("/etc/libvirt/hooks/qemu.d/50-vmhost")
CALLED: Final = Path("/run/vmhost-hook")
_MARK: Final = "# vmhost: puts guests into their VLANs when they start; written and removed by vmhost"
_PIDFILES: Final = (Path("/run/libvirtd.pid"), Path("/run/virtqemud.pid"))
_SYSTEMD: Final = Path("/run/systemd/system")
_END: Final = 30.0

# Whoever is not ours, or in no VLAN, must not depend on Python, nor on this installation being there.
_SCRIPT: Final = """\
#!/bin/sh
{mark}
{{ echo "$PPID" >{called}; }} 2>/dev/null
case $2/$3 in
start/begin | reconnect/begin | release/end | migrate/begin) ;;
*) exit 0 ;;
esac
xml=$(cat)
case $xml in
*{namespace}*' spoofing='*) ;;
*{namespace}*' pvid='* | *{namespace}*' tagged='* | *{namespace}*' isolated='*) [ "$2" != release ] || exit 0 ;;
*) exit 0 ;;
esac
printf '%s\\n' "$xml" | {python} "$@"
code=$?
[ "$2" = start ] || [ "$2" = migrate ] || exit 0
exit "$code"
"""
_PYTHON: Final = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from vmhost.helpers.hook import main; sys.exit(main(sys.argv[1:]))"
)


@dataclass(frozen=True, slots=True)
class LibvirtHook:
    """``ports.Hook`` for the system's libvirt daemon.

    :param file: where the hook lies.
    """

    file: Path = FILE

    def state(self) -> ObservedHook:
        """Return whether the hook is there, and whether libvirt calls it."""
        try:
            with os_errors(self.file, "read"):
                installed = self.file.read_text() == script()
                written = self.file.stat().st_ctime
        except DriverError:
            return ObservedHook()
        pid = daemon()
        # A daemon that is not running will find the hook when it starts.
        called = pid is not None and _called_by() == pid
        return ObservedHook(installed, pid is None or called or _started(pid) > written, called)

    def install(self) -> None:
        """Write the hook; one of ours is replaced, others in the directory stay.

        :raises AlreadyThere: another's file has its name. :raises PermissionDenied: this takes root.
        """
        self._check_ours()
        make_directory(self.file.parent)
        write_atomically(self.file, script().encode(), mode=0o755)

    def remove(self) -> None:
        """Take the hook away. :raises AlreadyThere: it is another's file."""
        self._check_ours()
        with os_errors(self.file, "remove"):
            self.file.unlink(missing_ok=True)

    def restart_daemon(self) -> None:
        """Let libvirt's daemon end and start again; guests run on.

        :raises Refused: nobody would start it again. :raises DriverError: it did not end, or not start.
        """
        pid = daemon()
        if pid is None:
            return
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        if _SYSTEMD.is_dir():
            run(["systemctl", "try-restart", f"{name}.service"], timeout=2 * _END)
            return
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
        if not {"-d", "--daemon"} & set(words):
            text = "neither systemd nor itself would start it again"
            raise Refused(text, subject=name, hint=f"kill {pid}, then {shlex.join(words)}")
        with suppress(ProcessLookupError), ProcessWatch(pid) as watch:
            watch.send(signal.SIGTERM)
            if not watch.ended(_END):
                raise DriverError(f"still runs {_END:g} s after SIGTERM", subject=name, retryable=True)
        run(words, timeout=_END)

    def _check_ours(self) -> None:
        with suppress(FileNotFoundError), os_errors(self.file, "read"):
            if self.file.exists() and _MARK not in self.file.read_text(errors="replace").splitlines():
                raise AlreadyThere("it is not vmhost's", subject=str(self.file), hint=f"mv {self.file} {self.file}.old")


def script() -> str:
    """Return the hook as this installation of vmhost writes it."""
    top = str(Path(__file__).parents[2])
    python = shlex.join([sys.executable, "-I", "-c", _PYTHON, top])
    return _SCRIPT.format(mark=_MARK, called=CALLED, namespace=NAMESPACE, python=python)


def daemon() -> int | None:
    """Return the process of libvirt's daemon; None: none runs."""
    for pidfile in _PIDFILES:
        with suppress(OSError, ValueError):
            pid = int(pidfile.read_text())
            if Path(f"/proc/{pid}/comm").read_text().strip() == pidfile.stem:
                return pid
    return None


def _called_by() -> int:
    with suppress(OSError, ValueError):
        return int(CALLED.read_text())
    return 0


def _started(pid: int) -> float:
    """Return when a process started, in seconds since the epoch (proc(5), field 22 of ``stat``)."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age
