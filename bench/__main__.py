"""Run benchmarks, each against its peers, and write their tables into their sections of bench/RESULTS.md.

Those that need a hypervisor run in a lab of their own, with the image of the examples (scripts/image). Those that need
more are run by hand: bench_bridge a kernel that filters VLANs, bench_fleet a peer, bench_contact two others.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "RESULTS.md"
VMHOST = str(Path(sys.executable).with_name("vmhost"))
HEADING = "\n## "
HERE = ("bench_ssh", "bench_ready", "bench_tui", "bench_vlans", "bench_placement")
IN_LAB = (
    "bench_list",
    "bench_refresh",
    "bench_create",
    "bench_boot",
    "bench_snapshot",
    "bench_backup",
    "bench_compression",
)


def main() -> int:
    """Run them one after another; return 1 when a promise was not kept."""
    lab = f"bench-{os.getpid()}"
    done = {name: _run(sys.executable, "-m", f"bench.{name}") for name in HERE}
    subprocess.run([str(ROOT / "scripts" / "image")], check=True, cwd=ROOT)
    subprocess.run([VMHOST, "lab", "up", lab, "--bridge"], check=True, stdout=subprocess.DEVNULL)
    try:
        done |= {name: _run(VMHOST, "lab", "exec", lab, "--", sys.executable, "-m", f"bench.{name}") for name in IN_LAB}
    finally:
        subprocess.run([VMHOST, "lab", "down", lab], check=False)
    text = with_sections(RESULTS.read_text("utf-8"), {name: one.stdout for name, one in done.items() if one.stdout})
    RESULTS.write_text(text, encoding="utf-8")
    return max(one.returncode for one in done.values())


def with_sections(text: str, measured: Mapping[str, str]) -> str:
    """Return the results with what was measured in its sections; those of other benchmarks stay as they are."""
    first, *others = f"\n{text}".split(HEADING)
    sections = dict(other.split("\n", 1) for other in others)
    sections |= {name: f"\n{_when()}\n\n{found.strip()}\n" for name, found in measured.items()}
    return first.lstrip("\n") + "".join(f"{HEADING}{name}\n{content}" for name, content in sections.items())


def _run(*argv: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    sys.stdout.write(done.stdout)
    return done


def _when() -> str:
    return (
        f"{datetime.now(UTC):%Y-%m-%d}; {os.cpu_count()} CPUs, {platform.machine()}, load average over 5 minutes "
        f"{os.getloadavg()[1]:.1f}; kernel {platform.release()}, Python {platform.python_version()}, "
        f"{_version('libvirtd')}, {_version('qemu-system-x86_64')}"
    )


def _version(program: str) -> str:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    first = done.stdout.splitlines()[:1] or [f"no {program}"]
    return first[0].partition("(Debian")[0].strip()


if __name__ == "__main__":
    sys.exit(main())
