"""What a refresh of the interface costs with a thousand guests over RPC, against the bare calls that it needs.

Run in a lab: ``vmhost lab exec NAME -- .venv/bin/python -m bench.bench_refresh [GUESTS] [ROUNDS]``. Its libvirtd serves
the test driver over its socket; the guests are defined as vmhost defines them, and run. That driver counts neither CPU
time nor bytes, so what it answers of a guest is shorter than QEMU's answer, and all that we add weighs the more.
"""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import libvirt

from bench.ab import interleave, report
from vmhost.drivers.libvirt.stats import _CHEAP, _DEAR
from vmhost.ops.host import Host
from vmhost.testing import builders
from vmhost.tui.app import VmhostApp

URI = "test+unix:///default?socket=/run/libvirt/libvirt-sock"
LIMIT = 2.0
SIZE = (120, 40)


def fill(handle: Any, count: int) -> list[Any]:
    """Define guests as vmhost does, from one definition, and start them."""
    spec = builders.guest("web")
    who = builders.identity(spec)
    text = builders.domain_xml(spec, who, builders.metadata(spec, who), kind="test")
    made = []
    for number in range(count):
        name = f"web-{number:04}"
        made.append(handle.defineXML(text.replace(who.uuid, builders.uuid_of(name)).replace(">web<", f">{name}<")))
        made[-1].create()
    return made


def bare(handle: Any) -> None:
    """What a refresh has to ask: the counters of all guests."""
    handle.getAllDomainStats(_CHEAP | _DEAR, libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT)


def bare_whole(handle: Any) -> None:
    """What a refresh has to ask after an event: the counters, who is there, and every definition."""
    bare(handle)
    for domain in handle.listAllDomains(0):
        domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        domain.XMLDesc(0)


async def measured(handle: Any, count: int, rounds: int) -> int:
    """Take turns; return 1 when a refresh costs more than it may."""
    with Host(URI) as host, ThreadPoolExecutor(1) as pool:
        app = VmhostApp(host, interval=3600)
        async with app.run_test(size=SIZE):
            while app.picture is None or len(app.picture.samples) < 2:
                await asyncio.sleep(0.01)

            def refresh(*, whole: bool) -> None:
                """Take a picture in a thread, as the interface does, and show it."""
                app._watch._wish.whole = whole
                app.picture = pool.submit(app._watch.look).result()

            ways = {"the bare call": lambda: bare(handle), "a refresh": lambda: refresh(whole=False)}
            rows = interleave(ways, base="the bare call", rounds=rounds, warm=5)
            kept = report(f"A refresh with {count} guests over RPC", rows, of="a refresh", limit=LIMIT)
            ways = {"the bare calls": lambda: bare_whole(handle), "a refresh": lambda: refresh(whole=True)}
            rows = interleave(ways, base="the bare calls", rounds=max(3, rounds // 6))
            return max(kept, report("The same after an event", rows, of="a refresh", limit=LIMIT))


def main() -> int:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 60
    handle = libvirt.open(URI)
    made = fill(handle, count)
    try:
        return asyncio.run(measured(handle, count, rounds))
    finally:
        for domain in made:
            domain.destroy()
            domain.undefine()


if __name__ == "__main__":
    sys.exit(main())
