"""A session is a text: command lines after ``$``, each followed by what it writes and by its exit code if it is not 0.

``|`` stands before a line of stdout, ``!`` before one of stderr. ``$ echo TEXT > FILE`` makes a file, ``{job}`` in a
command is the id of the newest job. Times and ids that differ from run to run are masked.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmhost.cli.main import run

SITE = """\
apiVersion: vmhost/v1
name: try
networks: {lan: {bridge: br0, subnet: 10.20.0.0/24, gateway: 10.20.0.1}}
defaults: {image: debian-12, memory: 512M, disks: [{size: 4G}], nics: [{network: lan}]}
guests:
"""
MASKS = (
    (re.compile(r"\b\d{8}T\d{6}-[0-9a-f]{6}\b"), "JOB"),
    (re.compile(r"\b\d+\.\d s\b"), "0.0 s"),
    (re.compile(r"(?<=SECONDS  )\d+\.\d"), "0.0"),
    (re.compile(r'("seconds": )[\d.]+'), r"\g<1>0"),
    (re.compile(r"(?m)^(  seconds: )[\d.]+$"), r"\g<1>0"),
)

SIDE_BY_SIDE = re.compile("guest (start|stop) [a-z0-9-]+ [a-z]")


def commands(text: str) -> Iterator[str]:
    """Yield the command lines of a session."""
    return (line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ "))


class Terminal:
    """Runs command lines in this process, where no terminal is."""

    def __init__(self, capture: pytest.CaptureFixture[str], directory: Path) -> None:
        self._capture = capture
        self._directory = directory

    def replay(self, text: str) -> str:
        """Return the session as it goes now; lines between commands that begin with # stay."""
        kept = [line for line in text.splitlines() if line.startswith("#")]
        return "\n".join([*kept, *(self.one(line) for line in commands(text))]) + "\n"

    def one(self, line: str) -> str:
        """Run one command line; return it with its outcome."""
        if line.startswith("echo "):
            _, content, _, name = shlex.split(line)
            guests = "".join(f"  {guest.strip()}\n" for guest in content.split(";"))
            (self._directory / name).write_text(SITE + guests, encoding="utf-8")
            return f"$ {line}"
        code, out, err = self.run(*shlex.split(self._filled(line))[1:])
        talk = sorted(err.splitlines()) if SIDE_BY_SIDE.search(line) else err.splitlines()
        shown = [*(f"| {each}" for each in out.splitlines()), *(f"! {each}" for each in talk)]
        return self._masked("\n".join([f"$ {line}", *shown, *([f"exit {code}"] if code else [])]))

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command on the demonstration's host; return its exit code, stdout and stderr."""
        self._capture.readouterr()
        code = run(["-c", "fake:demo", *arguments])
        return code, *self._capture.readouterr()

    def _filled(self, line: str) -> str:
        return line.replace("{job}", self._newest()) if "{job}" in line else line

    def _newest(self) -> str:
        return self.run("job", "list", "--limit", "1", "-o", "name")[1].strip()

    def _masked(self, text: str) -> str:
        text = text.replace(str(self._directory), "DIRECTORY")
        for pattern, mask in MASKS:
            text = pattern.sub(mask, text)
        return text.replace(f"vmhost/{os.getpid()}", "vmhost/PID")
