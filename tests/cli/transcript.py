"""The sessions of the manual, typed again: what a person would see on one terminal, stdout and stderr together.

``...`` on a line of its own stands for lines that are left out. What differs from run to run counts as equal, and so
does the order of lines where guests are worked on side by side.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cli.session import MASKS
from tests.manual import blocks
from tests.plan.happenings import happen
from vmhost.cli.main import run
from vmhost.testing import FakeHost, savefile
from vmhost.testing.demo import STATE, demo_host

LEFT_OUT = "..."
VERDICTS = re.compile(r"(?m)(; \S+: cloud-init \w+)+$")
SIDE_BY_SIDE = re.compile(r"vmhost (apply|guest (start|stop|restart)) ")


class Player:
    """Plays the sessions of one page in a directory, on one host."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._code = 0

    def page(self, text: str) -> str:
        """Return a page with its sessions as they go now; one that goes as it is written is left as it is."""
        pieces, done = [], 0
        for block in blocks(text):
            if block.mark == "happens":
                self._happen(block.value)
            elif block.mark == "file":
                (self.directory / block.value).write_text(block.text, encoding="utf-8")
            elif block.mark == "replay":
                pieces += [text[done : block.start], self.session(block.text)]
                done = block.end
        return "".join([*pieces, text[done:]])

    def session(self, text: str) -> str:
        """Return a session as it goes now."""
        return "".join(
            f"$ {line}\n{shown}" for line, written in _typed(text) for shown in [self._settled(line, written)]
        )

    def _settled(self, line: str, written: str) -> str:
        now = self._one(line)
        return written if same(line, written, now) else now

    def _one(self, line: str) -> str:
        if line == "echo $?":
            return f"{self._code}\n"
        words = shlex.split(line.replace("{job}", self._newest_job()))
        if words[0] == "cat":
            return (self.directory / words[1]).read_text(encoding="utf-8")
        assert words[0] == "vmhost", f"this cannot be replayed: {line}"
        self._code, shown = _run(words[1:])
        return shown

    def _newest_job(self) -> str:
        return _run(["job", "list", "--limit", "1", "-o", "name"])[1].strip()

    def _happen(self, text: str) -> None:
        path = Path(os.environ[STATE])
        world = savefile.load(path) or demo_host().world
        happen(FakeHost(world=world, keep=lambda changed: savefile.store(path, changed)), text)
        savefile.store(path, world)


def same(line: str, written: str, now: str) -> bool:
    """Whether a command's output goes as it is written."""
    want, have = masked(written).splitlines(), masked(now).splitlines()
    if SIDE_BY_SIDE.match(f"{line} "):
        kept = [each for each in want if each != LEFT_OUT]
        return all(each in have for each in kept) and (len(kept) < len(want) or sorted(want) == sorted(have))
    pattern = "".join(r"(?:[^\n]*\n)*" if each == LEFT_OUT else re.escape(f"{each}\n") for each in want)
    return re.fullmatch(pattern, "".join(f"{each}\n" for each in have)) is not None


def masked(text: str) -> str:
    """Return a text without what differs from run to run."""
    for pattern, mask in MASKS:
        text = pattern.sub(mask, text)
    text = VERDICTS.sub(lambda found: "".join(sorted(re.findall(r"; [^;]+", found.group()))), text)
    return re.sub(r"(?m) +$", "", re.sub(r"(JOB|ID) +", r"\1 ", text))


def _typed(text: str) -> Iterator[tuple[str, str]]:
    """Yield each command line of a session with what is written below it."""
    for piece in re.split(r"(?m)^\$ ", text)[1:]:
        line, _, shown = piece.partition("\n")
        yield line, shown


def _run(arguments: list[str]) -> tuple[int, str]:
    with _one_terminal() as written:
        code = run(["-c", "fake:demo", *arguments])
    return code, written.getvalue().decode("utf-8")


@contextmanager
def _one_terminal() -> Iterator[io.BytesIO]:
    """Let stdout and stderr be one stream, as they are for a person."""
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding="utf-8", write_through=True)
    before = sys.stdout, sys.stderr
    sys.stdout = sys.stderr = stream
    try:
        yield written
    finally:
        sys.stdout, sys.stderr = before
        stream.detach()
