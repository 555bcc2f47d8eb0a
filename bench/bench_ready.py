"""How late we learn that an SSH server is up: knocking against pollers, each with servers that open at a random moment.

Run: ``python -m bench.bench_ready [ROUNDS]``.
"""

from __future__ import annotations

import random
import socket
import sys
import time

from bench.ab import Row, interleave, table
from tests.ssh.test_knock import opening_late, target
from vmhost.drivers.signals import GuestWakeups
from vmhost.drivers.ssh.shell import SshShell

PROMISED_MS = 100.0


def knocking() -> float:
    """Return the lag of our way, in seconds."""
    wakeups = GuestWakeups()
    with SshShell() as shell, opening_late(_delay()) as (port, moments), shell.knock(target(port), wakeups.notify):
        if "ssh" not in wakeups.wait(10):
            raise TimeoutError("the server was not noticed")
        return time.monotonic() - moments[0]


def polling(interval: float) -> float:
    """Return the lag of a loop that tries, and sleeps."""
    with opening_late(_delay()) as (port, moments):
        time.sleep(random.random() * interval)
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                time.sleep(interval)
            else:
                return time.monotonic() - moments[0]


def _delay() -> float:
    return 0.05 + random.random() / 10


def main() -> int:
    """Measure and print; return 1 when the promise was not kept."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    ways = {"knocking": knocking, "a poller of 1 s": lambda: polling(1.0)}
    rows: list[Row] = interleave(ways, base="a poller of 1 s", rounds=rounds)
    table("From listening to our return", rows)
    ours = next(row for row in rows if row.name == "knocking")
    kept = ours.p95_ms <= PROMISED_MS
    sys.stdout.write(
        f"\nknocking: {ours.p95_ms:.0f} ms, promised at most {PROMISED_MS:.0f}: {'kept' if kept else 'NOT KEPT'}\n"
    )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
