"""Points with and without compression, of a disk that holds programs and text: how long they take, and how much room.

Run in a lab: ``vmhost lab exec NAME -- .venv/bin/python -m bench.bench_compression [ROUNDS [MEBIBYTES]]``. Nothing is
promised: the figures say when it pays.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import libvirt

from bench.ab import interleave, table
from bench.bench_backup import clear
from bench.paused import MIB, Bench, paused
from vmhost.model.points import Compression, Point

WAYS: tuple[Compression, ...] = ("none", "zstd")
PIECE = MIB


def fill(bench: Bench, mebibytes: int) -> None:
    """Let the guest's disk hold what this machine has of programs, libraries and texts; its QEMU is started anew."""
    bench.domain.destroy()
    raw = bench.scratch / "filled.raw"
    with raw.open("wb") as file:
        tar = subprocess.Popen(("tar", "-C", "/usr", "-cf", "-", "lib", "share", "bin"), stdout=subprocess.PIPE)
        assert tar.stdout is not None
        for _ in range(mebibytes):
            file.write(tar.stdout.read(PIECE))
        tar.kill()
        tar.wait()
        file.truncate(mebibytes * MIB)
    _run("qemu-img", "convert", "-n", "-f", "raw", "-O", "qcow2", str(raw), str(bench.disk))
    raw.unlink()
    bench.domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)


def take(bench: Bench, directory: Path, compression: Compression) -> tuple[float, Point]:
    """Take a point; how long that took."""
    began = time.perf_counter()
    (result,) = bench.host.backups.run([bench.name], repository=str(directory), compression=compression)
    seconds = time.perf_counter() - began
    if result.error or result.point is None:
        raise result.error or RuntimeError("no point")
    return seconds, result.point


def fulls(bench: Bench, sizes: dict[str, int]) -> Iterator[tuple[str, Callable[[], float]]]:
    """Yield the ways of taking a full point."""

    def once(compression: Compression) -> float:
        directory = bench.scratch / compression
        seconds, point = take(bench, directory, compression)
        sizes[f"full, {compression}"] = point.size
        clear(bench, directory)
        return seconds

    for compression in WAYS:
        yield compression, partial(once, compression)


def restores(bench: Bench) -> Iterator[tuple[str, Callable[[], float]]]:
    """Yield the ways of restoring a full point in place; the guest is shut off."""

    def once(compression: Compression) -> float:
        began = time.perf_counter()
        bench.host.apply(bench.host.backups.plan_restore(bench.name, repository=str(bench.scratch / compression)))
        seconds = time.perf_counter() - began
        bench.host.apply(bench.host.backups.plan_confirm(bench.name))
        return seconds

    for compression in WAYS:
        yield compression, partial(once, compression)


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=600)


def main() -> int:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    size = int(sys.argv[2]) if len(sys.argv) > 2 else 1024
    sizes: dict[str, int] = {}
    with paused("packed", size) as bench:
        fill(bench, size)
        table(f"A full point of {size} MiB", interleave(dict(fulls(bench, sizes)), base="none", rounds=rounds))
        for compression in WAYS:
            take(bench, bench.scratch / compression, compression)
        bench.domain.destroy()
        table(f"{size} MiB restored", interleave(dict(restores(bench)), base="none", rounds=rounds))
    sys.stdout.write("\n| point | MiB |\n|---|---|\n")
    sys.stdout.writelines(f"| {name} | {size / MIB:.1f} |\n" for name, size in sizes.items())
    return 0


if __name__ == "__main__":
    sys.exit(main())
