"""A command on an open SSH connection: ours, asyncssh, paramiko as it comes, OpenSSH's ControlMaster; one sshd for all.

The ways take turns (A B C D A B C D ...), so that whatever else the machine does meets all of them. The figures are
medians; a ratio is the median of the ratios of neighbouring runs. Run: ``python -m bench.bench_ssh [ROUNDS]``.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.ssh.private_sshd import PrivateSshd
from vmhost.drivers.ssh.shell import SshShell

COMMAND = ("/bin/uname", "-a")
ROUNDS = 300
LIMIT = 1.2
"""What the project promises: at most so many times asyncssh."""


@dataclass(frozen=True, slots=True)
class Row:
    """One way: milliseconds, and its ratio to asyncssh."""

    name: str
    median_ms: float
    p95_ms: float
    ratio: float


def measure(rounds: int = ROUNDS) -> list[Row]:
    """Measure all ways."""
    with tempfile.TemporaryDirectory() as directory, PrivateSshd(Path(directory)) as sshd, ExitStack() as stack:
        ways = {name: stack.enter_context(way(sshd)) for name, way in WAYS.items()}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(rounds + 10):
            for name, once in ways.items():
                seconds = once()
                if turn >= 10:
                    times[name].append(seconds)
    return [_row(name, taken, times["asyncssh"]) for name, taken in times.items()]


def _row(name: str, taken: list[float], base: list[float]) -> Row:
    ratios = [mine / theirs for mine, theirs in zip(taken, base, strict=True)]
    return Row(
        name, statistics.median(taken) * 1e3, statistics.quantiles(taken, n=20)[-1] * 1e3, statistics.median(ratios)
    )


@contextmanager
def ours(sshd: PrivateSshd) -> Iterator[Callable[[], float]]:
    """Our session."""
    with SshShell() as shell:
        session = shell.connect(sshd.target(), deadline=time.monotonic() + 10)

        def once() -> float:
            began = time.perf_counter()
            result = session.run(COMMAND, timeout=10)
            seconds = time.perf_counter() - began
            assert result.exit_code == 0
            assert result.stdout.startswith(b"Linux")
            return seconds

        yield once


@contextmanager
def by_asyncssh(sshd: PrivateSshd) -> Iterator[Callable[[], float]]:
    """The fastest SSH library of Python, inside its own event loop."""
    import asyncssh

    loop = asyncio.new_event_loop()
    options = {"username": sshd.user, "client_keys": [str(sshd.identity)], "known_hosts": None}
    connection = loop.run_until_complete(asyncssh.connect("127.0.0.1", sshd.port, **options))

    async def run() -> float:
        began = time.perf_counter()
        result = await connection.run(" ".join(COMMAND))
        seconds = time.perf_counter() - began
        assert result.exit_status == 0
        return seconds

    yield lambda: loop.run_until_complete(run())
    connection.close()
    loop.run_until_complete(connection.wait_closed())
    loop.close()


@contextmanager
def by_paramiko(sshd: PrivateSshd) -> Iterator[Callable[[], float]]:
    """paramiko's own client, as its documentation shows it."""
    import paramiko

    client = paramiko.SSHClient()
    client.get_host_keys().add(f"[127.0.0.1]:{sshd.port}", "ssh-ed25519", paramiko.Ed25519Key(data=_blob(sshd)))
    client.connect(
        "127.0.0.1",
        sshd.port,
        username=sshd.user,
        key_filename=str(sshd.identity),
        allow_agent=False,
        look_for_keys=False,
    )

    def once() -> float:
        began = time.perf_counter()
        _, stdout, stderr = client.exec_command(" ".join(COMMAND))
        stdout.read()
        stderr.read()
        assert stdout.channel.recv_exit_status() == 0
        return time.perf_counter() - began

    yield once
    client.close()


def _blob(sshd: PrivateSshd) -> bytes:
    from vmhost.drivers.ssh.openssh import parse_public_key

    return parse_public_key(sshd.host_key).blob


@contextmanager
def by_control_master(sshd: PrivateSshd) -> Iterator[Callable[[], float]]:
    """The system's ssh over one shared connection, a process for each command."""
    control = sshd.directory / "control"
    options = ["-o", f"ControlPath={control}", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    ssh = ["ssh", "-F", "none", "-q", "-i", str(sshd.identity), "-p", str(sshd.port), "-l", sshd.user, *options]
    subprocess.run([*ssh, "-o", "ControlMaster=yes", "-o", "ControlPersist=yes", "127.0.0.1", "true"], check=True)

    def once() -> float:
        began = time.perf_counter()
        subprocess.run([*ssh, "127.0.0.1", *COMMAND], check=True, stdout=subprocess.PIPE)
        return time.perf_counter() - began

    yield once
    subprocess.run([*ssh, "-O", "exit", "127.0.0.1"], check=True, stderr=subprocess.DEVNULL)


WAYS = {
    "vmhost": ours,
    "asyncssh": by_asyncssh,
    "paramiko as it comes": by_paramiko,
    "ssh ControlMaster": by_control_master,
}


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    head = "| a command on an open connection | median ms | 95 % ms | times asyncssh |\n|---|---:|---:|---:|\n"
    return head + "".join(f"| {r.name} | {r.median_ms:.2f} | {r.p95_ms:.2f} | {r.ratio:.2f} |\n" for r in rows)


def main() -> int:
    """Print the table; 1 when ours is slower than promised."""
    rows = measure(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
    print(table(rows), end="")
    own = next(row for row in rows if row.name == "vmhost")
    if own.ratio > LIMIT:
        print(f"vmhost takes {own.ratio:.2f} times asyncssh, more than {LIMIT}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
