"""A cold ``vmhost guest list`` against the floor, an interpreter that imports libvirt and lists the domains.

Run in a lab with some guests: ``vmhost lab exec NAME -- .venv/bin/python -m bench.bench_list [ROUNDS]``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bench.ab import interleave, report

LIMIT = 2.5
FLOOR = "import libvirt; c = libvirt.open(None); [d.name() for d in c.listAllDomains()]"
BIN = Path(sys.executable).parent


def main() -> int:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 30

    # Python's own cache of compiled modules is part of any installation; an environment that forbids it measures the
    # compiler.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def way(*argv: str) -> None:
        subprocess.run(argv, check=True, capture_output=True, timeout=60, env=environment)

    rows = interleave(
        {
            "python + import libvirt": lambda: way(sys.executable, "-c", FLOOR),
            "vmhost guest list": lambda: way(str(BIN / "vmhost"), "guest", "list"),
            "virsh list --all": lambda: way("virsh", "list", "--all"),
            "vmhost --help": lambda: way(str(BIN / "vmhost"), "--help"),
        },
        base="python + import libvirt",
        rounds=rounds,
    )
    return report("A cold listing", rows, of="vmhost guest list", limit=LIMIT)


if __name__ == "__main__":
    sys.exit(main())
