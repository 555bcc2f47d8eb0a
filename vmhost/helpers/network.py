"""The watchdog over a network change, and the program that makes the kept networks anew at boot.

Both do steps that somebody has planned before, with nothing but netlink: no libvirt, no site file, no planner.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Final, TypeGuard

from vmhost.drivers.layout import layout_for
from vmhost.drivers.netkeeper import KEPT, PendingFile, boot_time, read_kept, steps_of, write_kept
from vmhost.drivers.netlink import Netlink
from vmhost.drivers.processes import birth_of, process_is_alive
from vmhost.model.errors import Absent, AlreadyThere, Conflict, DriverError, VmhostError
from vmhost.model.netsteps import (
    AttachUplink,
    DeleteBridge,
    DeleteVlanLink,
    KeepNetwork,
    LinkStep,
    PortStep,
    SetPortVlans,
)

TICK: Final = 0.2
PATIENCE: Final = 60.0
"""Seconds that the maker of a change has beyond those of the confirmation, before it counts as stuck."""

LOCK: Final = 10.0
"""Seconds that the watchdog waits for the host's lock; then it acts without: nobody else puts the network back."""

UPLINK: Final = 60.0
"""Seconds that an uplink has at boot to be there."""


def main(arguments: Sequence[str]) -> int:
    """``watch [--detach] PENDING RUNTIME`` or ``boot KEPT``; 0, or 1 when something could not be done."""
    verb, *rest = arguments
    if verb == "boot":
        return boot(Path(rest[0]))
    if rest[0] == "--detach":
        rest = rest[1:]
        if os.fork():
            os._exit(0)
        _leave()
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    return watch(PendingFile(Path(rest[0])), Path(rest[1]))


def _leave() -> None:
    """Let go of the caller's session, terminal and directory."""
    os.setsid()
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)


def watch(file: PendingFile, runtime: Path) -> int:
    """Wait until the change is decided; put the former network back when its time is over or its maker died."""
    links = Netlink()
    links.links()  # what this takes is loaded before anybody relies on us
    with file.locked():
        data = file.read()
        if data is None:
            return 0
        file.write({**data, "watchdog": os.getpid(), "birth": birth_of(os.getpid())})
    limit = boot_time() + float(data["seconds"]) + PATIENCE
    while data is not None and data["state"] in ("applying", "waiting"):
        maker, birth = data["maker"]
        alive = process_is_alive(int(maker), birth=str(birth))
        until = limit if data["state"] == "applying" else float(data["until"])
        if boot_time() >= until or (data["state"] == "applying" and not alive):
            return _take_back(file, runtime, links)
        time.sleep(min(TICK, max(0.01, until - boot_time())))
        data = file.read()
    return 0


def _take_back(file: PendingFile, runtime: Path, links: Netlink) -> int:
    with file.locked():
        data = file.read()
        if data is None:
            return 0  # it was confirmed in the very last moment
        if data["state"] == "applying":
            maker, birth = data["maker"]
            if process_is_alive(int(maker), birth=str(birth)):
                with suppress(ProcessLookupError):
                    os.kill(int(maker), signal.SIGKILL)
        file.write({**data, "state": "restoring"})
    with ExitStack() as stack:
        _lock_host(stack, runtime)
        failures = carry_out(steps_of(data["undo"]), links)
        before = KeepNetwork(str(data["site"]), steps_of(data["before"]))
        if before not in read_kept(kept := file.path.with_name(KEPT)) and (before.steps or kept.exists()):
            write_kept(kept, before)
    with file.locked():
        if file.read() is not None:
            file.write({**data, "state": "restored", "failures": failures})
    return 1 if failures else 0


def _lock_host(stack: ExitStack, runtime: Path) -> None:
    from vmhost.drivers.locks import FileLocks
    from vmhost.ports import Waiting

    with suppress(VmhostError):
        layout = replace(layout_for(privileged=True), runtime=runtime)
        stack.enter_context(FileLocks(layout).host(Waiting(seconds=LOCK)))


def carry_out(steps: Iterable[LinkStep], links: Netlink) -> list[str]:
    """Do steps in order, each whatever became of the others, and return what went wrong.

    What is already as it should be is no failure: some of the steps may have been done, or never were undone.
    """
    failures = []
    with links.session():
        for of_ports, group in groupby(steps, _is_of_port):
            for step in _left(tuple(group), links) if of_ports else group:
                try:
                    _one(step, links)
                except (VmhostError, OSError, ValueError) as error:
                    failures.append(str(error))
    return failures


def _is_of_port(step: LinkStep) -> TypeGuard[PortStep]:
    return isinstance(step, AttachUplink | SetPortVlans)


def _left(steps: Sequence[LinkStep], links: Netlink) -> Sequence[LinkStep]:
    """Do steps of ports all at once; return what is left to do."""
    with suppress(VmhostError, OSError, ValueError):
        return links.carry_out_ports([step for step in steps if _is_of_port(step)])
    return steps


def _one(step: LinkStep, links: Netlink) -> None:
    for attempt in range(5):
        try:
            links.carry_out(step)
        except Absent:
            return
        except AlreadyThere:
            if isinstance(step, DeleteBridge | DeleteVlanLink):
                raise
            return
        except Conflict:
            if isinstance(step, SetPortVlans) and not (step.pvid or step.untagged or step.tagged):
                return  # no port any more: it carries nothing
            raise
        except DriverError as error:
            if not error.retryable or attempt == 4:
                raise
            time.sleep(TICK)
        else:
            return


def boot(kept: Path) -> int:
    """Make all kept networks anew; a part that fails keeps no other from coming."""
    links, failed = Netlink(), False
    for network in read_kept(kept):
        site, steps = network.site, network.steps
        _await_uplinks(steps, links)
        for text in carry_out(steps, links):
            failed = True
            sys.stderr.write(f"vmhost: site {site}: {text}\n")
        missing = {step.link for step in steps if isinstance(step, AttachUplink)} - _names(links)
        for name in sorted(missing):
            failed = True
            sys.stderr.write(f"vmhost: site {site}: there is no link {name} to be an uplink\n")
    return 1 if failed else 0


def _await_uplinks(steps: Iterable[LinkStep], links: Netlink) -> None:
    """Give the kernel and udev the time to find and name network cards."""
    wanted = {step.link for step in steps if isinstance(step, AttachUplink)}
    deadline = boot_time() + UPLINK
    while not wanted <= _names(links) and boot_time() < deadline:
        time.sleep(TICK)


def _names(links: Netlink) -> set[str]:
    return {link.name for link in links.links()}
