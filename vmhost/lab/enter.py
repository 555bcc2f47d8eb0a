"""The way into a lab: its cgroups, namespaces and environment; and how a process knows that it is in one.

As a program (``main``) this joins the lab and becomes the command: a process moves itself, before it has children. One
that is in the lab's namespaces but not in its cgroups could not start guests there (cgroups(7), nsdelegate).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from vmhost.drivers.command import replace
from vmhost.lab import cgroups, store
from vmhost.lab.store import Kernel, Lab, Status
from vmhost.lab.uml.client import call
from vmhost.model.errors import Conflict, PermissionDenied, VmhostError
from vmhost.model.layout import MOVED_BY

MARK = Path("/run/vmhost-lab")
"""Exists in labs only and holds the name; /run is private there."""

FAILED = 255
"""Exit code when the command could not be started at all, as ssh has it."""

_DROPPED = (
    # Places and services of the machine that mean something else, or nothing, in the lab.
    "DBUS_SESSION_BUS_ADDRESS",
    "DBUS_SYSTEM_BUS_ADDRESS",
    "LIBVIRT_DEFAULT_URI",
    "NOTIFY_SOCKET",
    "VIRSH_DEFAULT_CONNECT_URI",
    "XDG_RUNTIME_DIR",
    "VMHOST_LAB_DIR",
    *MOVED_BY,
)
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_BOOTSTRAP = (
    "import sys; sys.path.insert(0, sys.argv[1]); from importlib import import_module; "
    "sys.exit(import_module(sys.argv[2]).main(sys.argv[3:]))"
)


def inside() -> str | None:
    """The name of the lab that this process is in; None: it is in none."""
    try:
        return MARK.read_text().strip()
    except FileNotFoundError:
        return None


def python(module: str, *arguments: str) -> list[str]:
    """The command line that calls ``main(arguments)`` of a module of ours.

    It needs the standard library only, starts quickly, and leaves nothing in the environment of what it starts.
    """
    top = Path(__file__).parents[2]
    return [sys.executable, "-I", "-S", "-c", _BOOTSTRAP, str(top), module, *arguments]


def become(lab: Lab, argv: Sequence[str], env: Mapping[str, str] | None = None) -> NoReturn:
    """Become a command in a lab: in the same directory, if the lab has it, and on our terminal.

    :param env: variables added to ours.
    :raises Conflict: the lab is not ready; nothing has changed.
    :raises PermissionDenied: it is not our lab.
    """
    added = dict(env or {})
    if lab.kernel == Kernel.UML:
        replace(python("vmhost.lab.enter", str(lab.directory), *argv), env={**os.environ, **added})
    line = command(lab, argv, added)
    if not lab.user:
        try:
            cgroups.join(lab.directory)
        except PermissionError as error:
            raise PermissionDenied("root's lab", subject=lab.name, hint=f"sudo vmhost lab shell {lab.name}") from error
    replace(line, env={**os.environ, **added})


def command(lab: Lab, argv: Sequence[str], added: Mapping[str, str]) -> list[str]:
    """The command line that enters a lab's namespaces and runs ``argv`` there.

    What stands in the environment stays there, off the command line; only the machine's places are taken out.
    """
    check_ready(lab)
    spaces = ["--user", "--preserve-credentials"] if lab.user else ["--cgroup"]
    unset = [f"--unset={name}" for name in _DROPPED if name in os.environ and name not in added]
    ours = _ours(lab)
    return [
        *("nsenter", "--target", str(lab.pid), "--mount", "--net", "--pid", *spaces, "--"),
        *("env", f"--chdir={_directory(lab)}", *unset),
        *(f"{name}={value}" for name, value in ours.items() if name not in added),
        *argv,
    ]


def check_ready(lab: Lab) -> None:
    """:raises Conflict: the lab is not ready."""
    if lab.status is not Status.READY:
        raise Conflict(f"the lab is {lab.status}", subject=lab.name, hint=f"vmhost lab down {lab.name}")


def environment(lab: Lab) -> dict[str, str]:
    """Our environment as it is in a lab."""
    return {**{name: text for name, text in os.environ.items() if name not in _DROPPED}, **_ours(lab)}


def _ours(lab: Lab) -> dict[str, str]:
    return {"VMHOST_LAB": lab.name, "debian_chroot": f"lab {lab.name}", "PATH": _path(os.environ.get("PATH", ""))}


def _directory(lab: Lab) -> str:
    here = os.getcwd()  # noqa: PTH109 - the words of the path, as they are
    try:
        return here if Path(f"/proc/{lab.pid}/root{here}").is_dir() else "/"
    except PermissionError:
        return "/"


def _path(path: str) -> str:
    """A search path with the system's programs in it: an ordinary user is root in a lab, too."""
    own = [directory for directory in path.split(":") if directory]
    return ":".join([*own, *(directory for directory in _PATH.split(":") if directory not in own)])


def main(arguments: Sequence[str]) -> int:
    """``DIRECTORY COMMAND...``: become the command in the lab of that directory."""
    directory, *argv = arguments
    lab = store.read(Path(directory))
    try:
        if lab.kernel == Kernel.UML:
            check_ready(lab)
            return call(lab.directory, lab.name, argv, environment(lab), os.getcwd())  # noqa: PTH109 - as it is
        become(lab, argv)
    except VmhostError as error:
        sys.stderr.write(f"vmhost: {error}\n")
        return FAILED
