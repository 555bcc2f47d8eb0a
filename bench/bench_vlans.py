"""What VLANs cost: planning and verifying 200 guests whose network is as it should be, and the hook at a guest's start.

As root: ``python -m bench.bench_vlans [ROUNDS]``. The hook tags a port of a bridge in a network namespace that nobody
sees. On a kernel whose bridges cannot filter VLANs it gets as far as finding that out, and this says so.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.ab import p95
from vmhost.drivers import command, hook
from vmhost.drivers.netns import in_new_namespace
from vmhost.helpers.hook import set_up
from vmhost.model.errors import Conflict
from vmhost.model.identity import GuestIdentity, GuestMetadata, NicIdentity
from vmhost.model.permit import Permit
from vmhost.ops.host import Host
from vmhost.ops.proposals import _request
from vmhost.ops.sites import parse_site
from vmhost.plan.netverify import verify_network
from vmhost.plan.site import plan_site
from vmhost.render.metadata import metadata_xml
from vmhost.testing import FakeHost

GUESTS = 200
PROMISED = {"plan and verify 200 guests": 200.0, "the hook's own work": 50.0, "the whole hook": 500.0}
UUID = "3f2a91c4-6c1d-4a8e-9b57-0d1e2f3a4b5c"
TAP = "vh3f2a91c4-0"


def main() -> int:
    """Measure and print; return 1 when a promise was not kept."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    taken = {"plan and verify 200 guests": _planning(rounds)}
    filters, own, whole = in_new_namespace(lambda: _hook(rounds))
    taken |= {"the hook's own work": own, "the whole hook": whole}
    out, kept = sys.stdout.write, True
    out("\nVLANs\n\n| what | median ms | 95th percentile ms | promised ms | |\n|---|---|---|---|---|\n")
    for name, times in taken.items():
        median = statistics.median(times) * 1e3
        good = median <= PROMISED[name]
        kept &= good
        verdict = "kept" if good else "NOT KEPT"
        out(f"| {name} | {median:.1f} | {p95(times) * 1e3:.1f} | {PROMISED[name]:.0f} | {verdict} |\n")
    if not filters:
        out("\nThis kernel's bridges cannot filter VLANs: the hook ends by saying so.\n")
    return 0 if kept else 1


def _timed(once: Callable[[], object], rounds: int) -> list[float]:
    once()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        once()
        times.append(time.perf_counter() - began)
    return times


def _planning(rounds: int) -> list[float]:
    fake = FakeHost()
    fake.world.memory = 1 << 40
    fake.add_image("debian-12")
    networks = "".join(
        f"  n{n}: {{bridge: br0, vlan: {100 + n}, subnet: 10.{n}.0.0/16, reach: agent}}\n" for n in range(20)
    )
    guests = "".join(f"  g{n:03}: {{nics: [{{network: n{n % 20}}}]}}\n" for n in range(GUESTS))
    site = parse_site(
        "apiVersion: vmhost/v1\nname: bench\nbridges: {br0: {mode: vlan-aware}}\n"
        f"networks:\n{networks}"
        "defaults: {image: debian-12, memory: 128M, disks: [{size: 4G}], ready: {by: none}}\n"
        f"guests:\n{guests}"
    )
    host = Host(ports=fake.ports)
    host.apply(host.plan(site))
    observed = host.observe()
    request, _, _ = _request(fake.ports, site, observed, Permit())

    def both() -> None:
        assert plan_site(request).empty
        assert verify_network(observed, site) == ()

    return _timed(both, rounds)


def _hook(rounds: int) -> tuple[bool, list[float], list[float]]:
    """Time the hook in process, after imports, and as libvirt runs it."""
    for words in (
        "link add br0 type bridge",
        f"tuntap add {TAP} mode tap",
        f"link set {TAP} master br0 up",
    ):
        command.run(["ip", *words.split()], timeout=20)
    filtering = ["ip", "link", "set", "br0", "type", "bridge", "vlan_filtering", "1"]
    filters = command.run(filtering, timeout=20, check=False).code == 0
    nic = NicIdentity("prod", "prod", "52:54:00:00:00:01", TAP, "", 0, 100, "200-299", "br0")
    metadata = metadata_xml(GuestMetadata(1, "bench", "root", "", GuestIdentity(UUID, "web", UUID, "", (nic,)), "{}"))
    xml = (
        f"<domain><name>web</name><metadata>{metadata}</metadata><devices><interface type='bridge'>"
        f"<source bridge='br0'/><target dev='{TAP}'/></interface></devices></domain>"
    )

    def work() -> None:
        try:
            set_up(xml)
        except Conflict:
            assert not filters

    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory() as place:
        script = Path(place) / "hook"
        script.write_text(hook.script())
        script.chmod(0o755)
        words = [str(script), "web", "start", "begin", "-"]

        def whole() -> None:
            done = command.run(words, timeout=20, input=xml.encode(), check=False, env=environment)
            assert done.code == (0 if filters else 1), done.stderr

        return filters, _timed(work, rounds), _timed(whole, rounds)


if __name__ == "__main__":
    sys.exit(main())
