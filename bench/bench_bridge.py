"""Ports into VLANs of a bridge against ``ip -batch`` and ``bridge -batch``, which are C and one process each.

Run in a lab with a kernel that filters VLANs: ``vmhost lab up NAME --kernel uml``, then ``vmhost lab exec NAME --
.venv/bin/python -m bench.bench_bridge [PORTS] [ROUNDS]``.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.ab import interleave, report
from vmhost.drivers.netlink import Netlink
from vmhost.helpers.network import carry_out
from vmhost.model.netsteps import AttachUplink, CreateBridge, LinkStep, SetPortVlans
from vmhost.model.vlans import port_vlans

LIMIT = 2.5
BRIDGE = "bench0"
OURS, THEIRS = "vmhost", "ip -batch and bridge -batch"


def main() -> int:
    """Measure and print."""
    ports = int(sys.argv[1]) if len(sys.argv) > 1 else 250
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    names = [f"bench-p{number}" for number in range(ports)]
    with TemporaryDirectory() as directory:
        _ip(Path(directory), [f"link add {name} type dummy" for name in names])
        rows = interleave(
            {
                THEIRS: lambda: _theirs(Path(directory), names),
                OURS: lambda: _ours(Path(directory), names),
            },
            base=THEIRS,
            rounds=rounds,
        )
        _ip(Path(directory), [f"link delete {name}" for name in names])
    return report(f"{ports} ports on a bridge, each in a VLAN", rows, of=OURS, limit=LIMIT)


def _ours(directory: Path, names: list[str]) -> float:
    links = Netlink()
    links.links()  # imported beforehand, as in any program that has looked at the host
    steps: list[LinkStep] = [CreateBridge(BRIDGE, "bench", 1500, "", True)]
    for number, name in enumerate(names):
        steps += [AttachUplink(name, BRIDGE), SetPortVlans(name, 100 + number, str(100 + number), "")]
    began = time.perf_counter()
    failures = carry_out(steps, links)  # as at boot
    taken = time.perf_counter() - began
    assert failures == []
    found = {link.name: link.vlans for link in links.links() if link.master == BRIDGE}
    assert found == {name: port_vlans(100 + number) for number, name in enumerate(names)}
    _reset(directory, names)
    return taken


def _theirs(directory: Path, names: list[str]) -> float:
    attach = [f"link add {BRIDGE} type bridge vlan_filtering 1 vlan_default_pvid 0", f"link set {BRIDGE} up"]
    attach += [f"link set {name} master {BRIDGE} up" for name in names]
    tag = [f"vlan add dev {name} vid {100 + number} pvid untagged" for number, name in enumerate(names)]
    began = time.perf_counter()
    _ip(directory, attach)
    _batch("bridge", directory, tag)
    taken = time.perf_counter() - began
    _reset(directory, names)
    return taken


def _reset(directory: Path, names: list[str]) -> None:
    _ip(directory, [f"link delete {BRIDGE}", *(f"link set {name} down" for name in names)])


def _ip(directory: Path, lines: list[str]) -> None:
    _batch("ip", directory, lines)


def _batch(program: str, directory: Path, lines: list[str]) -> None:
    file = directory / "batch"
    file.write_text("\n".join(lines) + "\n")
    subprocess.run([program, "-batch", str(file)], check=True)


if __name__ == "__main__":
    sys.exit(main())
