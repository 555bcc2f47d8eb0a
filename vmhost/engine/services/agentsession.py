"""A session through the guest agent, for guests that the host does not reach by the network."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

from vmhost.model.errors import Absent, DriverError, Refused
from vmhost.model.shell import CommandResult
from vmhost.ports import Hypervisor, Ports

ANSWER: Final = 10.0
PAUSE: Final = 0.1
ENVIRONMENT: Final = ["LC_ALL=C", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
_LONGEST_PAUSE: Final = 2.0


class AgentSession:
    """``ports.ShellSession`` by guest-exec (QEMU guest agent protocol); the agent runs everything as root.

    What a command says comes all at once at its end, at most 16 MiB of it; there is no way to end it before.
    """

    def __init__(self, hypervisor: Hypervisor, uuid: str, guest: str, ports: Ports) -> None:
        self._hypervisor = hypervisor
        self._uuid = uuid
        self._guest = guest
        self._clock = ports.clock
        self._signals = ports.signals

    def run(
        self,
        argv: Sequence[str],
        *,
        input: bytes = b"",  # noqa: A002 - the word of subprocess
        timeout: float,
        cap: int = 1 << 20,
        sudo: bool = False,
        until: bytes = b"",
        check: Callable[[], None] = lambda: None,
    ) -> CommandResult:
        """Run a command and wait for its end; ``sudo`` and ``until`` change nothing, and what ``check`` raises ends the
        waiting alone.
        """
        began = self._clock.monotonic()
        path, *rest = argv
        arguments: dict[str, Any] = {"path": path, "arg": rest, "env": ENVIRONMENT, "capture-output": True}
        if input:
            arguments["input-data"] = base64.b64encode(input).decode("ascii")
        pid = self._number(self._ask("guest-exec", arguments), "pid")
        if pid is None:
            raise self._no_sense("pid")
        status = self._await(pid, began + timeout, argv, timeout, check)
        streams = [self._data(status, name) for name in ("out-data", "err-data")]
        truncated = any(len(data) > cap for data in streams) or any(
            status.get(name) for name in ("out-truncated", "err-truncated")
        )
        signal = self._number(status, "signal")
        return CommandResult(
            argv=tuple(argv),
            exit_code=None if signal is not None else self._number(status, "exitcode") or 0,
            signal=str(signal) if signal is not None else None,
            stdout=streams[0][:cap],
            stderr=streams[1][:cap],
            truncated=truncated,
            seconds=self._clock.monotonic() - began,
        )

    def _await(
        self, pid: int, deadline: float, argv: Sequence[str], timeout: float, check: Callable[[], None]
    ) -> dict[str, Any]:
        """Ask for the command's end again and again: the agent tells nothing by itself."""
        wakeups = self._signals.open(self._hypervisor, self._uuid, "")
        pause = PAUSE
        try:
            while True:
                check()
                status = self._ask("guest-exec-status", {"pid": pid})
                if status.get("exited"):
                    return status
                if self._clock.monotonic() >= deadline:
                    raise DriverError(f"no end within {timeout:g} s: {' '.join(argv)[:200]}", subject=self._guest)
                wakeups.wait(pause)
                pause = min(_LONGEST_PAUSE, pause * 1.5)
        finally:
            wakeups.close()

    def write_file(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        script = 'umask 077; cat >"$1.vmhost" && chmod "$2" "$1.vmhost" && mv -fT "$1.vmhost" "$1"'
        result = self.run(("sh", "-c", script, "vmhost-write", path, f"{mode:o}"), input=data, timeout=60.0)
        if result.exit_code != 0:
            raise DriverError(f"{path}: {result.stderr.decode('utf-8', 'replace').strip()}", subject=self._guest)

    def read_file(self, path: str, *, cap: int = 1 << 20) -> bytes:
        result = self.run(("cat", "--", path), timeout=60.0, cap=cap)
        if result.exit_code != 0:
            raise Absent("no such file or directory", subject=path)
        if result.truncated:
            raise DriverError(f"larger than {cap} bytes", subject=path)
        return result.stdout

    def dial(self, port: int, *, timeout: float) -> socket.socket:
        text = "the guest agent leads no connections: probe this by a command"
        raise Refused(text, subject=self._guest)

    @property
    def alive(self) -> bool:
        return True  # every question is a connection of its own

    def close(self) -> None:
        """There is nothing to close."""

    def _ask(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        said = self._hypervisor.agent(self._uuid, json.dumps({"execute": name, "arguments": arguments}), ANSWER)
        try:
            answer = json.loads(said)
        except (ValueError, RecursionError) as error:
            raise self._no_sense(name) from error
        value = answer.get("return") if isinstance(answer, dict) else None
        if not isinstance(value, dict):
            raise self._no_sense(name)
        return value

    def _number(self, answer: dict[str, Any], key: str) -> int | None:
        value = answer.get(key)
        if value is not None and type(value) is not int:
            raise self._no_sense(key)
        return value

    def _data(self, answer: dict[str, Any], key: str) -> bytes:
        try:
            return base64.b64decode(answer.get(key, ""), validate=True)
        except (ValueError, TypeError) as error:
            raise self._no_sense(key) from error

    def _no_sense(self, what: str) -> DriverError:
        return DriverError(f"the guest agent gave no sensible answer to {what}", subject=self._guest)
