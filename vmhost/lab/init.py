"""What a lab starts with: the program that makes its namespaces, and the PID 1 in them.

``main`` is two processes. The first makes the namespaces, writes down who PID 1 is, lets it begin and reports its
success or failure to :func:`vmhost.lab.up`. The second is PID 1: with its end the kernel ends every process of the lab,
and with them go mounts and links. It begins only when it has been written down, so no lab can be lost.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from vmhost.drivers.command import run
from vmhost.lab import cgroups, daemons, enter, store, tree
from vmhost.lab.namespaces import Namespace, unshare
from vmhost.lab.store import Lab

BRIDGE = "br-lab"
BRIDGE_ADDRESS = "10.99.0.1/24"

_GO = b"go"
_READY = b"ready"


def main(arguments: Sequence[str]) -> int:
    """``DIRECTORY``: bring up the lab whose files and state lie there; 0: it is ready, 1: stderr says why not."""
    lab = store.read(Path(arguments[0]))
    spaces = Namespace.MOUNT | Namespace.NET | Namespace.PID
    if lab.user:
        unshare(spaces)
    else:
        cgroups.enter(lab.directory)
        unshare(spaces | Namespace.CGROUP)
        cgroups.settle(lab.directory)
    go_read, go_write = os.pipe()
    answer_read, answer_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        _be_init(lab, go_read, answer_write)
    os.close(go_read)
    os.close(answer_write)
    store.write(replace(lab, pid=pid, started=store.start_time(pid), boot=store.boot_id()))
    os.write(go_write, _GO)
    with os.fdopen(answer_read, "rb") as answers:
        answer = answers.read()
    if answer == _READY:
        return 0
    sys.stderr.write(answer.decode() or f"PID 1 of the lab ended early; see {lab.log}\n")
    return 1


def _be_init(lab: Lab, go: int, answer: int) -> NoReturn:
    """PID 1 of the lab, from the fork on: it buries orphans, from the first moment, while a child brings up the rest.

    libvirt waits for every QEMU that it ends, also for those that it started only to ask, and those are orphans.
    """
    try:
        os.setsid()
        _keep_only(lab.log, go, answer)
        if os.read(go, len(_GO)) == _GO:
            worker = os.fork()
            if worker == 0:
                _bring_up_and_answer(lab, answer)
            os.close(answer)
            _reap(worker)
    finally:
        os._exit(1)


def _bring_up_and_answer(lab: Lab, answer: int) -> NoReturn:
    try:
        _bring_up(lab)
        os.write(answer, _READY)
        os._exit(0)
    except BaseException as error:  # noqa: BLE001 - this process ends here; the first one reports
        os.write(answer, f"{str(error) or type(error).__name__}\n".encode())
    finally:
        os._exit(1)


def _reap(worker: int) -> None:
    """Bury children for ever, or until the worker has failed."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG)) != (0, 0):
                if found[0] == worker and found[1] != 0:
                    return
        signal.sigwaitinfo({signal.SIGCHLD})


def _keep_only(log: Path, *descriptors: int) -> None:
    """Let go of everything that came from outside: its terminal, its pipes, the lock of the lab."""
    null = os.open(os.devnull, os.O_RDONLY)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    low = 3
    for descriptor in sorted(descriptors):
        os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))


def _bring_up(lab: Lab) -> None:
    os.umask(0o022)
    tree.mount_all(lab, () if lab.user else cgroups.mounted())
    os.chdir("/")
    begin(lab)


def begin(lab: Lab) -> None:
    """In a lab whose file system is in place: bring up its network and its daemons."""
    enter.MARK.write_text(f"{lab.name}\n")
    lock = Path("/run/lock")
    lock.mkdir()
    lock.chmod(0o1777)
    run(["ip", "link", "set", "lo", "up"], timeout=10)
    if lab.bridge:
        run(["ip", "link", "add", BRIDGE, "type", "bridge", "forward_delay", "0"], timeout=10)
        run(["ip", "address", "add", BRIDGE_ADDRESS, "dev", BRIDGE], timeout=10)
        run(["ip", "link", "set", BRIDGE, "up"], timeout=10)
    daemons.start()
