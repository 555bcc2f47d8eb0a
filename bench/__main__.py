"""Run the benchmarks that this machine can run, each against its peers, and write the tables to bench/RESULTS.md.

Those that need a hypervisor run in a lab of their own, with the image of the examples (scripts/image).
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "RESULTS.md"
VMHOST = str(Path(sys.executable).with_name("vmhost"))
HERE = ("bench_ssh", "bench_ready", "bench_tui", "bench_vlans", "bench_placement")
IN_LAB = ("bench_list", "bench_create", "bench_boot", "bench_snapshot", "bench_backup", "bench_compression")


def main() -> int:
    """Run them one after another; return 1 when a promise was not kept."""
    lab = f"bench-{os.getpid()}"
    texts, codes = [], []
    for name in HERE:
        _note(texts, codes, _run(sys.executable, "-m", f"bench.{name}"))
    subprocess.run([str(ROOT / "scripts" / "image")], check=True, cwd=ROOT)
    subprocess.run([VMHOST, "lab", "up", lab, "--bridge"], check=True, stdout=subprocess.DEVNULL)
    try:
        for name in IN_LAB:
            _note(texts, codes, _run(VMHOST, "lab", "exec", lab, "--", sys.executable, "-m", f"bench.{name}"))
    finally:
        subprocess.run([VMHOST, "lab", "down", lab], check=False)
    RESULTS.write_text(_head() + "\n".join(texts), encoding="utf-8")
    return max(codes)


def _run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)


def _note(texts: list[str], codes: list[int], done: subprocess.CompletedProcess[str]) -> None:
    sys.stdout.write(done.stdout)
    texts.append(done.stdout)
    codes.append(done.returncode)


def _head() -> str:
    load = os.getloadavg()[1]
    return (
        "# Results\n\n"
        "Written by `make bench`. The ways of each table took turns in one run; a ratio is the median of the ratios\n"
        "of neighbouring runs.\n\n"
        f"- date: {datetime.now(UTC):%Y-%m-%d}\n"
        f"- machine: {os.cpu_count()} CPUs, {platform.machine()}; load average over 5 minutes {load:.1f}\n"
        f"- kernel {platform.release()}, Python {platform.python_version()}, {_version('libvirtd')}, "
        f"{_version('qemu-system-x86_64')}\n\n"
    )


def _version(program: str) -> str:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    first = done.stdout.splitlines()[:1] or [f"no {program}"]
    return first[0].partition("(Debian")[0].strip()


if __name__ == "__main__":
    sys.exit(main())
