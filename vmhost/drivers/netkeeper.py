"""``netports.Keeper``: the network that is kept for the next boot, and the change that waits for its confirmation.

Both are files of ``state/``. The second is what the watchdog (:mod:`vmhost.helpers.network`) works from: it is on the
disk before the first step of the change is done, and whoever changes it holds its lock.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vmhost.drivers import netunit
from vmhost.drivers.files import make_directory, os_errors, read_state, sync_directory, write_state
from vmhost.drivers.helperprogram import helper_program
from vmhost.drivers.netmanagers import link_managers
from vmhost.drivers.processes import birth_of, process_is_alive
from vmhost.model.errors import Absent, Conflict, DriverError, PermissionDenied, Refused
from vmhost.model.layout import Layout
from vmhost.model.netsteps import GuardNetwork, KeepNetwork, LinkStep, step_from_json, step_to_json
from vmhost.model.network import LinkManager, ObservedNetwork, PendingChange

VERSION: Final = 1
KEPT: Final = "network.json"
_START: Final = 30.0
"""Seconds that the watchdog has to say that it is there."""


def helper(*words: str) -> list[str]:
    """Return the command line of the helper program of this installation."""
    return helper_program("network", *words)


@dataclass(frozen=True, slots=True)
class PendingFile:
    """The change that waits, as the watchdog and everybody else read and write it.

    :param path: the file.
    """

    path: Path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let nobody else read or write it meanwhile."""
        make_directory(self.path.parent)
        with os_errors(self.path, "lock"):
            handle = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                yield
            finally:
                os.close(handle)

    def read(self) -> dict[str, Any] | None:
        """Return what it says; None: there is none, or it is of an earlier boot, whose links are gone."""
        try:
            data = read_state(self.path, newest=VERSION).data
        except Absent:
            return None
        return data if data.get("boot") == boot_id() else None

    def write(self, data: Mapping[str, Any]) -> None:
        """Write it; it is on the disk when this returns."""
        write_state(self.path, data, version=VERSION)

    def remove(self) -> None:
        """Remove it."""
        with os_errors(self.path, "remove"):
            self.path.unlink(missing_ok=True)
        sync_directory(self.path.parent)


class NetworkKeeper:
    """``netports.Keeper`` of this machine.

    :param layout: where state is kept.
    :param root: the directory that stands for ``/`` where other programs keep what they manage.
    """

    def __init__(self, layout: Layout, root: Path = Path("/")) -> None:
        self._kept = layout.state / "state" / KEPT
        self._pending = PendingFile(layout.state / "state" / "network-pending.json")
        self._layout = layout
        self._root = root

    def state(self) -> ObservedNetwork:
        pending = None
        with suppress(PermissionDenied):  # who may only look sees the links alone
            pending = self._pending.read()
        return ObservedNetwork(
            kept=self._kept_networks(),
            pending=_observed(pending) if pending else None,
            systemd=netunit.has_systemd(),
            unit=netunit.is_installed(self._kept),
        )

    def managers(self, links: Sequence[tuple[int, str]]) -> tuple[LinkManager, ...]:
        return link_managers(links, self._root)

    def keep(self, network: KeepNetwork) -> None:
        write_kept(self._kept, network)

    def guard(self, change: GuardNetwork) -> None:
        with self._pending.locked():
            before = self._pending.read()
            if before is not None and before["state"] != "restored":
                text = "another network change waits for its confirmation"
                raise Conflict(text, subject=str(before["site"]), hint="vmhost net confirm")
            self._pending.write(_begun(change))
        try:
            _start(self._pending.path, self._layout)
            self._await_watchdog()
        except BaseException:
            self._pending.remove()
            raise

    def await_confirmation(self) -> None:
        with self._pending.locked():
            data = self._pending.read()
            if data is None or data["state"] != "applying":
                text = "the watchdog has put the former network back"
                raise Refused(text, subject="network", hint="vmhost net show")
            self._pending.write({**data, "until": boot_time() + int(data["seconds"]), "state": "waiting"})

    def dismiss(self, *, confirmed: bool) -> None:
        with self._pending.locked():
            data = self._pending.read()
            if data is None:
                raise Absent("no network change waits", subject="network", hint="vmhost net show")
            if confirmed and data["state"] != "waiting":
                text = "it is too late: the former network was put back"
                raise Refused(text, subject=str(data["site"]), hint="vmhost net apply SITE")
            if confirmed:
                # Whoever dies here leaves a change that still waits; taking it back puts back what is kept, too.
                self.keep(KeepNetwork(str(data["site"]), steps_of(data["keep"])))
            self._pending.remove()

    def install_unit(self) -> None:
        netunit.install(self._kept)

    def remove_unit(self) -> None:
        netunit.remove()

    def _kept_networks(self) -> tuple[KeepNetwork, ...]:
        try:
            return read_kept(self._kept)
        except PermissionDenied:
            return ()

    def _await_watchdog(self) -> None:
        """:raises DriverError: it did not come; nothing of the network was changed."""
        deadline = time.monotonic() + _START
        while time.monotonic() < deadline:
            data = self._pending.read()
            watchdog = int(data["watchdog"]) if data else 0
            if data and watchdog and process_is_alive(watchdog, birth=str(data["birth"])):
                return
            time.sleep(0.02)
        text = "the watchdog did not start; nothing was changed"
        raise DriverError(text, subject="network", hint=shlex.join(helper("watch", str(self._pending.path))))


def read_kept(path: Path) -> tuple[KeepNetwork, ...]:
    """Return the networks that are kept, by site; none where there is no file."""
    try:
        sites = read_state(path, newest=VERSION).data["sites"]
    except Absent:
        return ()
    return tuple(KeepNetwork(site, steps_of(steps)) for site, steps in sorted(sites.items()))


def write_kept(path: Path, network: KeepNetwork) -> None:
    """Write down one site's network beside those of others; without steps it is forgotten."""
    kept = {each.site: each for each in read_kept(path)} | {network.site: network}
    sites = {each.site: _plain(each.steps) for each in kept.values() if each.steps}
    write_state(path, {"sites": sites}, version=VERSION)


def _begun(change: GuardNetwork) -> dict[str, Any]:
    return {
        "site": change.site,
        "state": "applying",
        "seconds": change.seconds,
        "until": 0.0,
        "user": os.environ.get("SUDO_USER", ""),
        "maker": [os.getpid(), birth_of(os.getpid())],
        "boot": boot_id(),
        "undo": _plain(change.undo),
        "keep": _plain(change.keep.steps),
        "before": _plain(change.before.steps),
        "failures": [],
        "watchdog": 0,
        "birth": "",
    }


def _observed(data: Mapping[str, Any]) -> PendingChange:
    keep = KeepNetwork(str(data["site"]), steps_of(data["keep"]))
    state, seconds = str(data["state"]), int(data["seconds"])
    left = max(0.0, float(data["until"]) - boot_time()) if state == "waiting" else 0.0
    return PendingChange(keep.site, state, seconds, left, str(data["user"]), keep, tuple(data["failures"]))


def _plain(steps: Sequence[LinkStep]) -> list[dict[str, Any]]:
    return [step_to_json(step) for step in steps]


def steps_of(values: Sequence[Mapping[str, Any]]) -> tuple[LinkStep, ...]:
    """Return the steps that JSON values describe. :raises ValueError: they describe none."""
    return tuple(step_from_json(value) for value in values)


def boot_id() -> str:
    """Return what tells this boot of the machine from every other."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def boot_time() -> float:
    """Return seconds since the boot; nobody sets this clock, and it goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _start(path: Path, layout: Layout) -> None:
    """Start the watchdog where it outlives us, our terminal and our control group."""
    from vmhost.drivers.command import run

    words = [str(path), str(layout.runtime)]
    if netunit.has_systemd():
        unit = [
            f"--unit=vmhost-network-{os.getpid()}",
            "--description=takes a network change back unless it is confirmed",
        ]
        run(["systemd-run", "--quiet", "--collect", *unit, "--", *helper("watch", *words)], timeout=_START)
    else:
        run(helper("watch", "--detach", *words), timeout=_START)
