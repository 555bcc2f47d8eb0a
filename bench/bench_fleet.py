"""Many guests at once: commands on open connections, and first contact; ours and asyncssh on one real sshd.

The ways take turns, so that whatever else the machine does meets both; a ratio is the median of the ratios of
neighbouring rounds. Run: ``python -m bench.bench_fleet [ROUNDS]``.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.ssh.private_sshd import PrivateSshd
from vmhost.drivers.clock import SystemClock
from vmhost.drivers.ssh.fanout import map_guests
from vmhost.drivers.ssh.shell import SshShell
from vmhost.engine.services.line import Lines
from vmhost.model.guestops import GuestCommand
from vmhost.model.shell import SshTarget

CONNECTIONS, COMMANDS = 32, 20
CONTACTS, AT_ONCE = 100, 8
ROUNDS = 5
OPEN_LIMIT, CONTACT_LIMIT = 1.2, 1.5
"""What the project promises: at most so many times asyncssh."""

TRUE = GuestCommand(("/bin/true",), sudo=False)


def lines_to(shell: SshShell, sshd: PrivateSshd, names: list[str]) -> Lines:
    """Lines to one server under many names: each has a connection of its own."""
    targets: dict[str, SshTarget] = {name: sshd.target(guest=name) for name in names}
    return Lines(lambda guest, deadline: shell.connect(targets[guest], deadline=deadline), SystemClock())


def our_commands(sshd: PrivateSshd) -> float:
    """Seconds for all commands, the connections being open."""
    names = [f"guest-{number}" for number in range(CONNECTIONS)]
    with SshShell() as shell, lines_to(shell, sshd, names) as lines:
        map_guests(lambda name: lines.run(name, TRUE), {name: name for name in names})

        def work(name: str) -> None:
            for _ in range(COMMANDS):
                assert lines.run(name, TRUE).exit_code == 0

        threads = [threading.Thread(target=work, args=(name,)) for name in names]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - began


def our_contacts(sshd: PrivateSshd) -> float:
    """Seconds for first contact with all, and a command."""
    names = [f"guest-{number}" for number in range(CONTACTS)]
    with SshShell() as shell, lines_to(shell, sshd, names) as lines:
        began = time.perf_counter()
        answers = map_guests(lambda name: lines.run(name, TRUE), {name: name for name in names}, workers=AT_ONCE)
        seconds = time.perf_counter() - began
    assert all(getattr(answer, "exit_code", None) == 0 for answer in answers.values()), answers
    return seconds


def _options(sshd: PrivateSshd) -> dict[str, object]:
    return {"port": sshd.port, "username": sshd.user, "client_keys": [str(sshd.identity)], "known_hosts": None}


def asyncssh_commands(sshd: PrivateSshd) -> float:
    """The same by asyncssh, in one event loop."""
    import asyncssh

    async def measure() -> float:
        connections = [await asyncssh.connect("127.0.0.1", **_options(sshd)) for _ in range(CONNECTIONS)]

        async def work(connection: asyncssh.SSHClientConnection) -> None:
            for _ in range(COMMANDS):
                assert (await connection.run("/bin/true")).exit_status == 0

        began = time.perf_counter()
        await asyncio.gather(*map(work, connections))
        seconds = time.perf_counter() - began
        for connection in connections:
            connection.close()
        return seconds

    return asyncio.run(measure())


def asyncssh_contacts(sshd: PrivateSshd) -> float:
    """The same by asyncssh, eight at a time."""
    import asyncssh

    async def measure() -> float:
        room = asyncio.Semaphore(AT_ONCE)

        async def work() -> None:
            async with room, asyncssh.connect("127.0.0.1", **_options(sshd)) as connection:
                assert (await connection.run("/bin/true")).exit_status == 0

        began = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(CONTACTS)))
        return time.perf_counter() - began

    return asyncio.run(measure())


def compare(
    ours: Callable[[PrivateSshd], float], theirs: Callable[[PrivateSshd], float], rounds: int, each: int
) -> tuple[float, float, float]:
    """Return our and their median milliseconds for one, and the median ratio."""
    mine, others = [], []
    with tempfile.TemporaryDirectory() as directory, PrivateSshd(Path(directory)) as sshd:
        for _ in range(rounds):
            mine.append(ours(sshd))
            others.append(theirs(sshd))
    ratios = [one / other for one, other in zip(mine, others, strict=True)]
    return statistics.median(mine) * 1e3 / each, statistics.median(others) * 1e3 / each, statistics.median(ratios)


def main() -> int:
    """Print both figures; 1 when one is slower than promised."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print("| figure | vmhost ms | asyncssh ms | ratio | promised |\n|---|---:|---:|---:|---:|")
    slow = False
    for words, ours, theirs, each, limit in (
        (
            f"a command, {CONNECTIONS} open connections at once",
            our_commands,
            asyncssh_commands,
            CONNECTIONS * COMMANDS,
            OPEN_LIMIT,
        ),
        (f"first contact and a command, {AT_ONCE} at a time", our_contacts, asyncssh_contacts, CONTACTS, CONTACT_LIMIT),
    ):
        mine, other, ratio = compare(ours, theirs, rounds, each)
        print(f"| {words} | {mine:.2f} | {other:.2f} | {ratio:.2f} | {limit} |")
        slow = slow or ratio > limit
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
