"""Starts a lab's kernel: an ordinary process, whose end is the end of the lab.

``main`` makes the process, writes down who it is, and only then lets it become the kernel, so no lab can be lost. The
kernel runs in a session of its own and needs nobody outside.
"""

from __future__ import annotations

import os
import select
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final, NoReturn

from vmhost.drivers.command import ProcessWatch, find
from vmhost.lab import enter, store
from vmhost.lab.store import Lab
from vmhost.lab.uml.line import LINES, into, out_of
from vmhost.model.errors import Absent, UsageError

PROGRAM: Final = "linux.uml"
MODULES: Final = Path("/usr/lib/uml/modules")
READY: Final = b"ready\n"
MOST_MEMORY: Final = 4 << 30
_GO: Final = b"go"
_FIRST: Final = 100
_START: Final = 120.0
_MEBIBYTE: Final = 1 << 20


def check(lab: Lab) -> None:
    """Return when this machine can have such a lab.

    :raises Absent: the kernel is not installed. :raises UsageError: its command line cannot name the lab's directory.
    """
    find(PROGRAM)
    if not MODULES.is_dir():
        raise Absent("the kernel's modules are missing", subject=str(MODULES), hint="apt-get install user-mode-linux")
    find("modprobe")
    if not str(lab.directory).isprintable() or set(' "\\') & set(str(lab.directory)):
        text = "a kernel's command line cannot hold blanks, quotes or backslashes"
        raise UsageError(text, subject=str(lab.directory), hint="export VMHOST_LAB_DIR=DIRECTORY")


def prepare(lab: Lab) -> None:
    """Make what the kernel finds in the lab's directory: its lines, its first program, its mount points."""
    for number in range(LINES):
        os.mkfifo(into(lab.directory, number), 0o600)
        os.mkfifo(out_of(lab.directory, number), 0o600)
    for mount_point in (lab.tree, lab.disk):
        mount_point.mkdir()
    first = lab.directory / "init"
    first.write_text(f"#!/bin/sh\nexec {shlex.join(enter.python('vmhost.lab.uml.init', str(lab.directory)))}\n")
    first.chmod(0o700)


def main(arguments: Sequence[str]) -> int:
    """``DIRECTORY``: start the kernel of that lab and wait until it is ready; 0: it is, 1: stderr says why not."""
    lab = store.read(Path(arguments[0]))
    # Held by us until the lab has answered, so that its end shows as the end of the line.
    answers = os.open(out_of(lab.directory, 0), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    go_read, go_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go_write)
        _be_kernel(lab, go_read)
    os.close(go_read)
    store.write(replace(lab, pid=pid, started=store.start_time(pid), boot=store.boot_id()))
    os.write(go_write, _GO)
    answer = _answer(answers, pid)
    if answer == READY:
        return 0
    sys.stderr.write(answer.decode(errors="replace").strip() or f"the lab's kernel ended early; see {lab.log}")
    sys.stderr.write("\n")
    return 1


def _answer(answers: int, pid: int) -> bytes:
    """What the first program says on the first line: one line of text; empty when the kernel ended before."""
    end, said = os.pidfd_open(pid), b""
    deadline = time.monotonic() + _START
    while not said.endswith(b"\n"):
        ready, _, _ = select.select([answers, end], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return b"no answer for %d s\n" % _START
        data = os.read(answers, 4096) if answers in ready else b""
        if not data and end in ready:
            return said
        if not data:
            # The kernel has not opened the line yet.
            time.sleep(0.02)
        said += data
    return said


def _be_kernel(lab: Lab, go: int) -> NoReturn:
    try:
        os.setsid()
        if os.read(go, len(_GO)) != _GO:
            os._exit(1)
        os.chdir(lab.directory)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _keep_only_lines(lab)
        environment = {key: value for key, value in os.environ.items() if key not in ("TMPDIR", "TMP", "TEMP")}
        os.execve(find(PROGRAM), [PROGRAM, *_words(lab)], environment)  # noqa: S606 - no shell is the point
    except OSError as error:
        os.write(2, f"{PROGRAM}: {error}\n".encode())
    finally:
        os._exit(1)


def _keep_only_lines(lab: Lab) -> None:
    """Let go of everything that came from outside, and open the lines where :func:`_words` says that they are.

    Both directions are opened for reading and writing: so a line does not end with the command that used it.
    """
    log = os.open(lab.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in ((0, null), (1, log), (2, log)):
        os.dup2(descriptor, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    for number in range(LINES):
        for place, path in enumerate((into(lab.directory, number), out_of(lab.directory, number))):
            opened = os.open(path, os.O_RDWR)
            os.dup2(opened, _FIRST + 2 * number + place)
            os.close(opened)


def _words(lab: Lab) -> Iterator[str]:
    """The kernel's command line: the machine's files are its root, the lines are its serial lines."""
    yield f"mem={memory() // _MEBIBYTE}M"
    yield from ("rootfstype=hostfs", "root=/dev/root", "rootflags=/", "rw", f"init={lab.directory}/init")
    yield from ("con=null", "con0=null,fd:1", "uml_dir=uml/", "umid=lab", "quiet", "panic=-1")
    yield f"hostname={os.uname().nodename}"
    for number in range(LINES):
        yield f"ssl{number}=fd:{_FIRST + 2 * number},fd:{_FIRST + 2 * number + 1}"


def memory() -> int:
    """How much memory a lab may use at most, in bytes: half the machine's, up to 4 GiB; only what it uses is taken."""
    return min(MOST_MEMORY, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)


def end_remains(lab: Lab, seconds: float) -> bool:
    """End what is left of a lab's kernel after its first process; False: something lives on after that time."""
    for pid in remains(lab):
        with suppress(ProcessLookupError), ProcessWatch(pid) as watch:
            watch.send(signal.SIGKILL)
            if not watch.ended(seconds):
                return False
    return True


def remains(lab: Lab) -> tuple[int, ...]:
    """The processes of a lab's kernel that are there, also when the first of them has been killed.

    They share its process group, whose number no other process gets as long as one of them lives.
    """
    mark = f"init={lab.directory}/init".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*") if lab.pid else ():
        with suppress(OSError):
            group = int((entry / "stat").read_text().rpartition(")")[2].split()[2])
            if group == lab.pid and mark in (entry / "cmdline").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return tuple(found)
