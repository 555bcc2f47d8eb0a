"""Full points, increments and restores of one guest against nbdcopy, virtnbdbackup, bare libvirt calls and qemu-img.

Run in a lab: ``vmhost lab exec NAME -- .venv/bin/python -m bench.bench_backup [ROUNDS [MEBIBYTES]]``. virtnbdbackup
takes part when it is installed. What is made is removed between the runs, and that is not counted for anybody. A full
point is hashed, checked and on the disk when ours returns; nbdcopy and qemu-img leave their files in the kernel's
memory, unless their row says otherwise.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import libvirt

from bench.ab import Row, interleave, table
from bench.paused import MIB, Bench, paused

DIRTY = 64 * MIB
INCREMENTS = 3
FULL, SILENT, WRITTEN, RESTORE = 1 / 0.6, 0.3, 0.5, 1.3
PULL = """<domainbackup mode='pull'><server transport='unix' socket='{socket}'/>
<disks><disk name='vda' backup='yes' type='file'><scratch file='{scratch}'/></disk></disks></domainbackup>"""


def clear(bench: Bench, directory: Path) -> None:
    """Remove what a backup made: points, checkpoints and their bitmaps; our repository itself may not vanish."""
    shutil.rmtree(directory / "hosts" if (directory / "format").exists() else directory)
    for checkpoint in bench.domain.listAllCheckpoints(libvirt.VIR_DOMAIN_CHECKPOINT_LIST_TOPOLOGICAL):
        checkpoint.delete(0)


def settle() -> None:
    """Bring to the disk what whoever went before has left in the kernel's memory: it is not the work of the next."""
    os.sync()


def ours(bench: Bench, directory: Path) -> float:
    """Take a point; what the guest is written meanwhile is the caller's."""
    began = time.perf_counter()
    (result,) = bench.host.backups.run([bench.name], repository=str(directory))
    seconds = time.perf_counter() - began
    if result.error:
        raise result.error
    return seconds


def full(bench: Bench) -> Callable[[], float]:
    """A first point, which is a full one."""

    def once() -> float:
        directory = bench.scratch / "ours"
        settle()
        seconds = ours(bench, directory)
        clear(bench, directory)
        return seconds

    return once


def job(bench: Bench, work: Callable[[str], None]) -> float:
    """Begin a backup job, do something with what it exports, and end it: the seconds of all that."""
    socket, scratch = "/var/lib/libvirt/qemu/bench.sock", bench.disk.with_name(f"{bench.disk.name}.scratch")
    began = time.perf_counter()
    bench.domain.backupBegin(PULL.format(socket=socket, scratch=scratch), None)
    work(f"nbd+unix:///vda?socket={socket}")
    bench.domain.abortJob()
    return time.perf_counter() - began


def nbdcopy(bench: Bench, *words: str) -> Callable[[], float]:
    """The quickest copier there is, to a raw file."""

    def once() -> float:
        target = bench.scratch / "copy.raw"
        settle()
        seconds = job(bench, lambda uri: _run("nbdcopy", *words, uri, str(target)))
        target.unlink()
        return seconds

    return once


def virtnbdbackup(bench: Bench) -> Callable[[], float]:
    """The usual tool."""

    def once() -> float:
        directory = bench.scratch / "peer"
        settle()
        began = time.perf_counter()
        _peer("full", bench, directory)
        seconds = time.perf_counter() - began
        clear(bench, directory)
        return seconds

    return once


def increments(bench: Bench, rounds: int, dirty: int) -> list[Row]:
    """Points after so many bytes were written, each way in a row of points of its own."""
    directory, chance = bench.scratch / "ours", iter(range(2, 250))

    def mine() -> float:
        bench.write(next(chance), 0, dirty)
        return ours(bench, directory)

    ours(bench, directory)
    ways: dict[str, Callable[[], float]] = {
        "backupBegin + abortJob": lambda: job(bench, lambda uri: None),
        "vmhost backup run": mine,
    }
    rows = interleave(ways, base="backupBegin + abortJob", rounds=rounds)
    clear(bench, directory)
    return rows


def peer_increments(bench: Bench, rounds: int, dirty: int) -> list[Row]:
    """The same of virtnbdbackup: libvirt's checkpoints are one row, so it has a turn of its own."""
    directory, chance = bench.scratch / "peer", iter(range(2, 250))

    def theirs() -> float:
        bench.write(next(chance), 0, dirty)
        began = time.perf_counter()
        _peer("inc", bench, directory)
        return time.perf_counter() - began

    _peer("full", bench, directory)
    rows = interleave({"virtnbdbackup": theirs}, base="virtnbdbackup", rounds=rounds)
    clear(bench, directory)
    return rows


def restores(bench: Bench, rounds: int) -> list[Row]:
    """A point of increments back in the guest's place, against qemu-img alone, which verifies nothing."""
    directory = bench.scratch / "ours"
    ours(bench, directory)
    for turn in range(INCREMENTS):
        bench.write(turn + 2, turn * DIRTY, DIRTY)
        ours(bench, directory)
    bench.domain.destroy()
    (last,) = (path.parent for path in directory.rglob("root.qcow2") if _rests(path) == INCREMENTS)
    target = bench.disk.with_name(f"{bench.disk.name}.restored")

    def floor(*, durable: bool) -> float:
        settle()
        began = time.perf_counter()
        _run("qemu-img", "convert", "-f", "qcow2", "-O", "qcow2", str(last / "root.qcow2"), str(target))
        if durable:
            _run("sync", str(target))
        seconds = time.perf_counter() - began
        target.unlink()
        return seconds

    def mine() -> float:
        backups = bench.host.backups
        settle()
        began = time.perf_counter()
        bench.host.apply(backups.plan_restore(bench.name, repository=str(directory)))
        seconds = time.perf_counter() - began
        bench.host.apply(backups.plan_confirm(bench.name))
        return seconds

    ways: dict[str, Callable[[], float]] = {
        "qemu-img convert": partial(floor, durable=False),
        "vmhost backup restore": mine,
        "qemu-img convert; sync": partial(floor, durable=True),
    }
    return interleave(ways, base="qemu-img convert", rounds=rounds)


def _rests(path: Path) -> int:
    said = subprocess.run(
        ("qemu-img", "info", "-U", "--backing-chain", str(path)), check=True, capture_output=True, text=True
    ).stdout
    return said.count("backing file: ")


def _peer(level: str, bench: Bench, directory: Path) -> None:
    _run("virtnbdbackup", "-U", bench.connection.getURI(), "-d", bench.name, "-l", level, "-o", str(directory))


def _run(*argv: str) -> None:
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(f"{argv[0]}: {done.stderr[-2000:]}")


def _promise(what: str, value: float, limit: float, unit: str = "") -> bool:
    kept = value <= limit
    sys.stdout.write(
        f"\n{what}: {value:.2f}{unit}, promised at most {limit:.2f}{unit}: {'kept' if kept else 'NOT KEPT'}\n"
    )
    return kept


def _named(rows: list[Row], name: str) -> Row:
    return next(row for row in rows if row.name == name)


def main() -> int:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 6
    size = int(sys.argv[2]) if len(sys.argv) > 2 else 2048
    peer = shutil.which("virtnbdbackup") is not None
    kept = []
    with paused("backed-up", size) as bench:
        ways = {"nbdcopy": nbdcopy(bench), "vmhost backup run": full(bench)}
        ways["nbdcopy --flush, on the disk"] = nbdcopy(bench, "--flush")
        if peer:
            ways["virtnbdbackup"] = virtnbdbackup(bench)
        rows = interleave(ways, base="nbdcopy", rounds=rounds)
        table(f"A full point of {size} MiB", rows)
        mine = _named(rows, "vmhost backup run")
        kept.append(_promise("vmhost backup run, times nbdcopy", mine.ratio, FULL))
        if peer:
            ratio = mine.median_ms / _named(rows, "virtnbdbackup").median_ms
            kept.append(_promise("vmhost backup run, times virtnbdbackup", ratio, 1 / 3))
        for dirty, limit in ((0, SILENT), (DIRTY, WRITTEN)):
            rows = increments(bench, rounds, dirty)
            rows += peer_increments(bench, rounds, dirty) if peer else []
            table(f"An increment with {dirty // MIB} MiB written", rows)
            kept.append(_promise("vmhost backup run", _named(rows, "vmhost backup run").median_ms / 1e3, limit, " s"))
        rows = restores(bench, rounds)
        table(f"{size} MiB and {INCREMENTS} increments restored", rows)
        kept.append(_promise("vmhost backup restore", _named(rows, "vmhost backup restore").ratio, RESTORE))
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
