"""Labs from outside: up, exec, shell, list, down."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from vmhost.drivers.command import GRACE, CommandFailed, Completed, foreground, run
from vmhost.lab import cache, cgroups, enter, store, tree
from vmhost.lab.store import Kernel, Lab
from vmhost.lab.uml import start as uml
from vmhost.model.errors import DriverError, NotFound, PermissionDenied, VmhostError

_UP = 180.0
_DOWN = 20.0
_AS_ROOT = ("unshare", "--user", "--map-auto", "--map-root-user", "--")


def up(name: str, *, bridge: bool = False, kernel: Kernel = Kernel.HOST) -> Lab:
    """Bring up a lab and return it when its libvirt answers.

    ``VMHOST_LAB_KVM=1`` shows /dev/kvm to the lab, on machines where guests run under it.

    :param name: letters, digits, ``.``, ``_`` and ``-``, at most 63.
    :param bridge: True: the lab begins with a bridge ``br-lab``, 10.99.0.1/24.
    :param kernel: the machine's own, in namespaces, or User-Mode Linux: slower, with VLANs, and for every user.
    :raises Conflict: a lab of that name exists, perhaps only as the remains of one.
    :raises PermissionDenied: this user cannot have labs here; the hint says what is missing.
    :raises DriverError: a part did not start. Nothing of the lab is left.
    """
    lab = Lab(
        store.check_name(name),
        store.root() / name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        mark=secrets.token_hex(8),
        images=str(cache.images()),
        user=os.geteuid() != 0,
        bridge=bridge,
        kvm=kernel is Kernel.HOST and os.environ.get("VMHOST_LAB_KVM") == "1" and Path("/dev/kvm").exists(),
        kernel=kernel,
    )
    if kernel is Kernel.UML:
        uml.check(lab)
    elif lab.user:
        _check_user()
    store.claim(lab.directory)
    with store.locked(lab.directory) as lock:
        try:
            return _bring_up(lab, lock)
        except BaseException:
            _remove(store.read(lab.directory))
            raise


def execute(name: str, argv: Sequence[str], *, env: Mapping[str, str] | None = None, grace: float = GRACE) -> int:
    """Run a command in a lab, on our own stdin, stdout and terminal, and return its exit code.

    It runs in the same directory if the lab has it, with ``VMHOST_LAB`` set. 255: it could not be started at all.

    :param env: variables added to ours.
    :param grace: seconds that it has to end after a Ctrl-C.
    :raises NotFound: there is no such lab.
    """
    lab = store.find(name)
    code = foreground(_line(lab, argv), env={**os.environ, **(env or {})}, grace=grace)
    return code if code >= 0 else 128 - code


def run_inside(
    name: str,
    argv: Sequence[str],
    *,
    timeout: float,
    input: bytes | None = None,  # noqa: A002 - the word that subprocess uses
    env: Mapping[str, str] | None = None,
    check: bool = True,
) -> Completed:
    """Run a command in a lab to its end and return what it said; see :func:`vmhost.drivers.command.run`.

    :raises NotFound: there is no such lab.
    :raises CommandFailed: it failed or took longer than ``timeout`` seconds.
    """
    return run(_line(store.find(name), argv), timeout=timeout, input=input, env=env, check=check)


def replace_by(name: str, argv: Sequence[str]) -> NoReturn:
    """Become a command in a lab: :func:`execute` for a program that has nothing else to do.

    :raises NotFound: there is no such lab.
    :raises Conflict: it is not ready.
    """
    enter.become(store.find(name), argv)


def enter_shell(name: str) -> NoReturn:
    """Become the user's shell in a lab.

    :raises NotFound: there is no such lab.
    :raises Conflict: it is not ready.
    """
    replace_by(name, [os.environ.get("SHELL") or "/bin/sh"])


def labs() -> tuple[Lab, ...]:
    """All labs of this user, by name: also those whose starter was killed, and the remains of dead ones."""
    return tuple(store.read(directory) for directory in store.directories())


def restart_libvirtd(name: str, *, kill: bool = False) -> None:
    """End the libvirtd of a lab and start it again; guests run on. Inside a lab: ``lab.daemons.restart_libvirtd``.

    :param kill: True: end it by SIGKILL, as a crash would.
    :raises NotFound: there is no such lab.
    :raises DriverError: it did not end or not start; the lab may be without libvirtd.
    """
    how = ("restart", "kill") if kill else ("restart",)
    run_inside(name, enter.python("vmhost.lab.daemons", *how), timeout=_UP)


def down(name: str) -> None:
    """End a lab, whatever state it is in: its guests, its daemons, everything that runs in it; nothing of it stays.

    :raises NotFound: there is no such lab.
    :raises DriverError: something would not go; the lab is still listed.
    """
    lab = store.find(name)
    # Before waiting for the lock: a start that is under way holds it, and fails when its PID 1 is gone.
    _kill(lab)
    try:
        with store.locked(lab.directory):
            _remove(store.read(lab.directory))
    except NotFound:
        # The start that failed has removed it meanwhile.
        return


def _line(lab: Lab, argv: Sequence[str]) -> list[str]:
    return enter.python("vmhost.lab.enter", str(lab.directory), *argv)


def _bring_up(lab: Lab, lock: int) -> Lab:
    store.write(lab)
    cache.make_images(lab)
    if lab.kernel == Kernel.UML:
        uml.prepare(lab)
    else:
        tree.make_directories(lab)
    known = cache.lend_capabilities(lab)
    try:
        # The lock goes along: until the start has ended, nobody else takes the lab apart, even if we are killed.
        run(_start(lab), timeout=_UP, pass_fds=[lock])
    except CommandFailed as error:
        what = " | ".join(error.stderr) or error.message
        raise DriverError(f"the lab did not start: {what}", subject=lab.name, hint="vmhost host doctor") from error
    lab = replace(store.read(lab.directory), ready=True)
    store.write(lab)
    if not known:
        _learn(lab)
    return lab


def _start(lab: Lab) -> list[str]:
    if lab.kernel == Kernel.UML:
        return enter.python("vmhost.lab.uml.start", str(lab.directory))
    if not lab.user:
        cgroups.make(lab.directory)
    return [*(_AS_ROOT if lab.user else ()), *enter.python("vmhost.lab.init", str(lab.directory))]


def _learn(lab: Lab) -> None:
    """Let libvirt ask every QEMU, and keep what it found out."""
    run_inside(lab.name, ["virsh", "--connect", "qemu:///system", "capabilities"], timeout=_UP)
    if lab.kernel == Kernel.UML:
        copied = run_inside(lab.name, ["tar", "-C", f"/{cache.CAPABILITIES}", "-c", "."], timeout=_UP)
        cache.place(lab).mkdir()
        unpack = ["tar", "-C", str(cache.place(lab)), "--no-same-owner", "-x"]
        run(unpack, timeout=_UP, input=copied.stdout)
    cache.keep_capabilities(lab)


def _kill(lab: Lab) -> None:
    with lab.watch() as watch:
        if watch is not None:
            watch.send(signal.SIGKILL)
            # The end of a PID 1 is the end of all its processes: the kernel waits for them (pid_namespaces(7)).
            if not watch.ended(_DOWN):
                raise _lives_on(lab)
    if lab.kernel == Kernel.UML and not uml.end_remains(lab, _DOWN):
        raise _lives_on(lab)


def _lives_on(lab: Lab) -> DriverError:
    return DriverError(f"still runs {_DOWN:g} s after SIGKILL", subject=lab.name, hint=f"vmhost lab down {lab.name}")


def _remove(lab: Lab) -> None:
    """End a lab whose lock we hold, and remove its groups and files."""
    _kill(lab)
    if not lab.user and lab.kernel == Kernel.HOST:
        cgroups.remove(lab.directory)
    shown = tree.mounts_below(lab.directory, Path("/proc/self/mountinfo").read_text())
    if shown:
        # Deleting would go through them into what they show.
        raise DriverError(f"mounted in its directory: {', '.join(shown)}", subject=lab.name, hint=f"umount {shown[-1]}")
    if lab.user and lab.kernel == Kernel.HOST:
        # Users other than root inside are subordinate ids here, whose files only they and the inner root may delete.
        run([*_AS_ROOT, "rm", "--recursive", "--force", "--", str(lab.directory)], timeout=60)
    else:
        shutil.rmtree(lab.directory)
    store.release(lab.directory)


def _check_user() -> None:
    """An ordinary user can have labs where user namespaces, subordinate ids and /dev/net/tun are open to users.

    libvirtd sets groups before it starts QEMU, which takes a range of ids that newuidmap(1) grants by /etc/subuid.
    """
    hint = "sudo vmhost lab up"
    try:
        run([*_AS_ROOT, "true"], timeout=10)
    except VmhostError as error:
        raise PermissionDenied(
            f"an ordinary user needs user namespaces and subordinate ids for a lab ({error})",
            subject="unshare",
            hint=f"{hint}, or: sudo apt-get install uidmap && sudo usermod --add-subuids 100000-165535 "
            "--add-subgids 100000-165535 $USER",
        ) from error
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        raise PermissionDenied(
            "not open to users", subject="/dev/net/tun", hint=f"{hint}, or: sudo chmod 666 /dev/net/tun"
        )
