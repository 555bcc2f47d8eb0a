"""Programs that a fake guest knows; tests add their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from vmhost.render.parse.cloudinit import VERDICT_ARGV, verdict_output
from vmhost.render.parse.quiesce import HOOKS_ARGV, TOLD
from vmhost.testing.guests import REPORTS
from vmhost.testing.world import System


@dataclass(frozen=True, slots=True)
class Ran:
    """How a program ended."""

    stdout: bytes = b""
    stderr: bytes = b""
    exit_code: int = 0


@dataclass(frozen=True, slots=True)
class Inside:
    """What a program sees: its guest's system and who runs it."""

    guest: str
    system: System
    user: str


Program = Callable[[Inside, Sequence[str], bytes], Ran]
"""Called with the guest, the arguments after the program's name, and its standard input."""


def _uname(inside: Inside, arguments: Sequence[str], _: bytes) -> Ran:
    if "-a" in arguments:
        return Ran(f"Linux {inside.system.hostname} 6.1.0-31-cloud-amd64 x86_64 GNU/Linux\n".encode())
    return Ran(b"Linux\n")


def _cat(inside: Inside, arguments: Sequence[str], data: bytes) -> Ran:
    out = data if not arguments else b""
    for path in arguments:
        if path not in inside.system.files:
            return Ran(out, f"cat: {path}: No such file or directory\n".encode(), 1)
        out += inside.system.files[path]
    return Ran(out)


def _tail(inside: Inside, arguments: Sequence[str], data: bytes) -> Ran:
    count = int(arguments[1]) if arguments[:1] == ("-n",) else 10
    read = _cat(inside, arguments[2:] if arguments[:1] == ("-n",) else arguments, data)
    if read.exit_code:
        return Ran(read.stdout, read.stderr.replace(b"cat: ", b"tail: cannot open "), read.exit_code)
    return Ran(b"".join(read.stdout.splitlines(keepends=True)[-count:]))


def ask_shell(inside: Inside, arguments: Sequence[str], _: bytes) -> Ran:
    """A fake guest has no shell; it knows vmhost's own questions: for cloud-init's verdict, and for hooks."""
    if tuple(arguments) == HOOKS_ARGV[1:]:
        return Ran(TOLD if "/etc/qemu/fsfreeze-hook" in inside.system.files else b"")
    if tuple(arguments) != VERDICT_ARGV[1:]:
        return Ran(stderr=b"sh: this guest runs single programs only\n", exit_code=126)
    result, status = (inside.system.files[path] for path in REPORTS)
    return Ran(verdict_output(result, status))


PROGRAMS: Final[dict[str, Program]] = {
    "cat": _cat,
    "echo": lambda _, arguments, __: Ran(" ".join(arguments).encode() + b"\n"),
    "false": lambda *_: Ran(exit_code=1),
    "hostname": lambda inside, *_: Ran(f"{inside.system.hostname}\n".encode()),
    "sh": ask_shell,
    "tail": _tail,
    "true": lambda *_: Ran(),
    "uname": _uname,
    "whoami": lambda inside, *_: Ran(f"{inside.user}\n".encode()),
}


_AROUND: Final = {"flock": 5, "timeout": 4}
"""Words that go before a command that is run under a lock or a time limit, as vmhost writes them."""


def run(programs: dict[str, Program], inside: Inside, argv: Sequence[str], data: bytes) -> Ran:
    """Run a program of the table, or say what a shell says of an unknown one; time limits and locks are not kept."""
    argv = argv[_AROUND.get(argv[0], 0) :]
    argv = argv[_AROUND.get(argv[0], 0) :]
    program = programs.get(argv[0]) or programs.get(argv[0].rpartition("/")[2])
    if program is None:
        return Ran(stderr=f"sh: 1: {argv[0]}: not found\n".encode(), exit_code=127)
    return program(inside, tuple(argv[1:]), data)
