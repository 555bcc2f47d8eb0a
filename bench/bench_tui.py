"""The terminal interface: first paint, a tick with thousands of guests, and a key pressed meanwhile.

    python -m bench.bench_tui [GUESTS] [ROUNDS]

A tick is measured in CPU time of the whole process: the bulk call on the fake host, the picture, and the screen. Beside
it stands the common way, which fills a table of Textual's anew at every tick.
"""

from __future__ import annotations

import asyncio
import os
import pty
import select
import statistics
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Awaitable, Callable
from fcntl import ioctl
from pathlib import Path
from typing import Any

from textual.app import App, ComposeResult
from textual.widgets import DataTable

from bench.ab import Row, row, table
from vmhost.ops.host import Host
from vmhost.testing import FakeHost, builders
from vmhost.tui.app import VmhostApp

VMHOST = str(Path(sys.executable).with_name("vmhost"))
FIRST_PAINT, TICK, KEY, MEMORY, IDLE = 0.5, 0.030, 0.100, 150.0, 3.0
SIZE = (120, 40)


def crowded(count: int, **more: float) -> FakeHost:
    """Return a host with that many running guests, in no time: one definition, many names."""
    fake = FakeHost(**more)
    fake.links.create_bridge("br0", alias="vmhost:shop", mtu=1500, address="10.20.0.1/16")
    spec = builders.guest("web")
    who = builders.identity(spec)
    fake.hypervisor.define(builders.domain_xml(spec, who, builders.metadata(spec, who)))
    (first,) = fake.world.domains.values()
    fake.world.domains.clear()
    from dataclasses import replace

    from vmhost.model.observed import DomainState

    for number in range(count):
        name = f"web-{number:04}"
        uuid = builders.uuid_of(name)
        xml = first.xml.replace(first.uuid, uuid).replace(">web<", f">{name}<")
        fake.world.domains[uuid] = replace(
            first, uuid=uuid, name=name, xml=xml, live_xml=xml, state=DomainState.RUNNING, number=number
        )
    return fake


def first_paint() -> float:
    """Return seconds from the start of the program to its first screen on a terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(VMHOST, [VMHOST, "tui", "--demo"], {**_environment(), "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"})
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    began, seen = time.perf_counter(), b""
    while b"quit" not in seen and time.perf_counter() - began < 20:
        if select.select([terminal], [], [], 1)[0]:
            seen = seen[-200:] + os.read(terminal, 65536)
    taken = time.perf_counter() - began
    os.write(terminal, b"q")
    _drain(terminal)
    os.waitpid(pid, 0)
    return taken


def _environment() -> dict[str, str]:
    left_out = ("PYTHONDONTWRITEBYTECODE", "COLUMNS", "LINES")  # the first would measure the compiler
    return {name: value for name, value in os.environ.items() if name not in left_out}


def _drain(terminal: int) -> None:
    try:
        while select.select([terminal], [], [], 5)[0] and os.read(terminal, 65536):
            pass
    except OSError:
        pass


def bare_start() -> float:
    """Return seconds of an interpreter that only imports the toolkit."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import textual.app"], check=True, env=_environment())
    return time.perf_counter() - began


async def ticks(app: VmhostApp, fake: FakeHost, rounds: int) -> list[float]:
    """Return the CPU seconds of single ticks."""
    taken = []
    for _ in range(rounds):
        fake.advance(2)
        await asyncio.sleep(0.1)
        before, began = app.picture, time.process_time()
        app._watch.wake(whole=False)
        while app.picture is before:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        taken.append(time.process_time() - began)
    return taken


async def keys(app: VmhostApp, pilot: Any, fake: FakeHost, rounds: int) -> list[float]:
    """Return seconds from a key to the screen that shows it, while pictures are taken one after another."""
    taken, grid = [], app.screen.query_one("#guests")
    for number in range(rounds):
        fake.advance(0.1)
        app._watch.wake(whole=False)
        drawn, began = grid.drawn, time.perf_counter()
        pilot.app._driver.process_message(_key("down" if number % 50 else "end"))
        while grid.drawn == drawn:
            await asyncio.sleep(0.0005)
        taken.append(time.perf_counter() - began)
        await asyncio.sleep(0.02)
    return taken


def _key(name: str) -> Any:
    from textual.events import Key

    return Key(name, None)


class Refilled(App[None]):
    """The common way: a table that is cleared and filled anew."""

    def compose(self) -> ComposeResult:
        yield DataTable()

    def fill(self, rows: list[tuple[str, ...]]) -> None:
        """Fill it."""
        found = self.query_one(DataTable)
        found.clear(columns=True)
        found.add_columns(*(f"column {number}" for number in range(len(rows[0]))))
        for cells in rows:
            found.add_row(*cells)


async def refilled(count: int, rounds: int) -> list[float]:
    """Return the CPU seconds of filling a table of Textual's anew."""
    app, taken = Refilled(), []
    async with app.run_test(size=SIZE) as pilot:
        for turn in range(rounds):
            began = time.process_time()
            app.fill([tuple(f"{number} {column} {turn}" for column in range(12)) for number in range(count)])
            await pilot.pause()
            taken.append(time.process_time() - began)
    return taken


async def crowd(count: int, rounds: int) -> dict[str, Any]:
    """Run the interface on a crowded host and return what was measured."""
    fake = crowded(count)
    app = VmhostApp(Host(ports=fake.ports), interval=3600)
    async with app.run_test(size=SIZE) as pilot:
        while app.picture is None:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        await ticks(app, fake, 10)
        found: dict[str, Any] = {"tick": await ticks(app, fake, rounds)}
        found["key"] = await keys(app, pilot, fake, rounds * 4)
    return found


def memory() -> float:
    """Return the resident memory of this process in MiB."""
    fields = Path("/proc/self/status").read_text(encoding="ascii").split("VmRSS:")[1].split()
    return int(fields[0]) / 1024


async def idle(seconds: float = 12.0) -> float:
    """Return the share of a CPU in per cent that the interface needs on the demonstration host, at its own pace."""
    app = VmhostApp(Host("fake:demo"))
    async with app.run_test(size=SIZE):
        await asyncio.sleep(2)
        began = time.process_time()
        await asyncio.sleep(seconds)
        return 100 * (time.process_time() - began) / seconds


def _run(work: Callable[[], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        return await work()

    return asyncio.run(main())


def promise(words: str, value: float, limit: float, unit: str) -> int:
    """Print whether a promise was kept; return 1 when not."""
    kept = value <= limit
    sys.stdout.write(f"{words}: {value:.1f} {unit}, promised at most {limit:g}: {'kept' if kept else 'NOT KEPT'}\n")
    return 0 if kept else 1


def main() -> int:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 30
    starts = [(first_paint(), bare_start()) for _ in range(10)]
    bare = [second for _, second in starts]
    paints = [row("vmhost tui --demo", [first for first, _ in starts], bare), row("import textual.app", bare, bare)]
    share = _run(idle)
    found = _run(lambda: crowd(count, rounds))
    held = memory()
    common = _run(lambda: refilled(count, 3))
    table("From the program's start to its first screen", paints)
    base = [statistics.median(common)] * rounds
    rows = [
        row(f"a tick with {count} guests", found["tick"], base),
        Row("a DataTable cleared and filled", statistics.median(common) * 1e3, max(common) * 1e3, 1.0),
    ]
    table("CPU time of a tick", rows)
    pressed = row("a key during ticks", found["key"], found["key"])
    sys.stdout.write("\n")
    return max(
        promise("first paint", paints[0].median_ms, FIRST_PAINT * 1e3, "ms"),
        promise(f"tick with {count} guests", rows[0].median_ms, TICK * 1e3, "ms of CPU"),
        promise("key to screen at the 95th percentile", pressed.p95_ms, KEY * 1e3, "ms"),
        promise(f"memory with {count} guests", held, MEMORY, "MiB"),
        promise("idle", share, IDLE, "% of a CPU"),
    )


if __name__ == "__main__":
    threading.stack_size(1 << 20)
    sys.exit(main())
