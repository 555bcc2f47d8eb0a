"""A real terminal: keys go in, screens are captured as text."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

VMHOST = Path(sys.executable).with_name("vmhost")


class Tmux:
    """A tmux server of its own with one window, and a shell in it."""

    def __init__(self, directory: Path, width: int, height: int) -> None:
        self._socket = directory / "tmux"
        environment = {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
        for name in ("TMUX", "COLUMNS", "LINES"):
            environment.pop(name, None)
        size = ("-x", str(width), "-y", str(height))
        command = ("tmux", "-S", str(self._socket), "-f", "/dev/null", "-u", "new-session", "-d", *size, "sh")
        subprocess.run(command, check=True, env=environment)
        self.keys("PS1='shell> '", "Enter")
        self.shows("shell>$")

    def run(self, *arguments: str) -> str:
        command = ("tmux", "-S", str(self._socket), *arguments)
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def keys(self, *keys: str) -> None:
        """Press keys, by tmux' names for them; what is no name is typed."""
        self.run("send-keys", *keys)

    def type(self, text: str) -> None:
        """Type a text as it stands."""
        self.run("send-keys", "-l", text)

    @property
    def screen(self) -> str:
        return self.run("capture-pane", "-p").rstrip()

    def shows(self, *words: str, seconds: float = 40.0) -> None:
        """Return when each of these patterns has been on the screen."""
        for word in words:
            assert self.waits(word, seconds=seconds), f"{word!r} is not on the screen:\n{self.screen}"

    def lacks(self, *words: str, seconds: float = 40.0) -> None:
        """Return when none of these patterns is on the screen any more."""
        for word in words:
            assert self.waits(word, there=False, seconds=seconds), f"{word!r} is still on the screen:\n{self.screen}"

    def waits(self, word: str, *, there: bool = True, seconds: float) -> bool:
        """Return whether a pattern came onto the screen, or left it, in time."""
        deadline = time.monotonic() + seconds
        while bool(re.search(word, self.screen)) is not there:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def end(self) -> None:
        subprocess.run(("tmux", "-S", str(self._socket), "kill-server"), check=False, capture_output=True)
