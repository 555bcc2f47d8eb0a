"""From the call to a running domain, without the guest's boot, against volumes + define + create by hand.

``vmhost apply`` is what the command does with ``--yes``: :meth:`vmhost.Host.apply_site`. Beside it are the plan that a
person is shown and its application.

Run in a lab that has the image: ``vmhost lab exec NAME -- .venv/bin/python -m bench.bench_create [ROUNDS]``.
virt-install takes part when it is installed. The floor makes what our plan holds through libvirt's own calls;
planning, journal, locks and verification are ours alone. Removing the guests is not counted for anybody. A guest that
does not run keeps the pool in place, so that nothing boots beside what is measured. libvirt is as it comes: what makes
a lab's guests start sooner is taken out of its settings meanwhile.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import libvirt

from bench.ab import interleave, report
from vmhost.lab.daemons import start_libvirtd, stop_libvirtd
from vmhost.model.permit import Permit
from vmhost.model.spec import Site
from vmhost.model.steps import CreateSeed, CreateVolume, DefineDomain
from vmhost.ops.host import Host
from vmhost.ops.sites import parse_site
from vmhost.render.storage import volume_xml

LIMIT = 1.15
QEMU_CONF = Path("/etc/libvirt/qemu.conf")
SEED_BYTES = 400 << 10
IMAGE = "debian-12"
SITE = """
apiVersion: vmhost/v1
name: bench
networks: {{lan: {{bridge: br-lab, subnet: 10.99.0.0/16}}}}
guests:
  {name}:
    image: {image}
    memory: 256M
    disks: [{{size: 4G}}]
    nics: [{{network: lan}}]
    ready: {{by: none}}
"""


def site_of(name: str) -> Site:
    """Return the site of one guest."""
    return parse_site(SITE.format(name=name, image=IMAGE))


def ours(host: Host, apply: Callable[[Site], object]) -> Callable[[], float]:
    """Apply a site of one guest, as a caller does."""

    def once() -> float:
        name = f"bench-{uuid4().hex[:8]}"
        began = time.perf_counter()
        apply(site_of(name))
        seconds = time.perf_counter() - began
        host.apply(host.plan_delete([name], Permit(power_off=True, disks=True)))
        return seconds

    return once


def floor(host: Host, connection: libvirt.virConnect) -> Callable[[], float]:
    """Make what a plan holds through libvirt's own calls."""

    def once() -> float:
        steps = [item.do for item in host.plan(site_of(f"floor-{uuid4().hex[:8]}")).plan.steps]
        pool = connection.storagePoolLookupByName("vmhost")
        made, began = [], time.perf_counter()
        for step in steps:
            match step:
                case CreateVolume(_, name, capacity, backing, kind):
                    xml = volume_xml(name, capacity, format="qcow2", backing=backing, backing_format=kind)
                    made.append(pool.createXML(xml))
                case CreateSeed():
                    made.append(pool.createXML(volume_xml(step.name, SEED_BYTES, format="raw")))
                case DefineDomain():
                    domain = connection.defineXML(step.xml)
                    domain.create()
        seconds = time.perf_counter() - began
        domain.destroy()
        domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)
        for volume in made:
            volume.delete()
        return seconds

    return once


def by_virt_install(image: str) -> Callable[[], float]:
    """The usual tool, with the same machine on the same backing image."""

    def once() -> float:
        name = f"peer-{uuid4().hex[:8]}"
        disk = f"size=4,backing_store={image},backing_format=qcow2,pool=vmhost"
        argv = ("virt-install", "--name", name, "--memory", "256", "--vcpus", "1", "--import", "--noautoconsole")
        rest = ("--disk", disk, "--network", "bridge=br-lab", "--graphics", "none", "--osinfo", "debian11")
        began = time.perf_counter()
        subprocess.run((*argv, *rest), check=True, capture_output=True, timeout=120)
        seconds = time.perf_counter() - began
        for verb in (("destroy", name), ("undefine", name, "--remove-all-storage")):
            subprocess.run(("virsh", *verb), check=True, capture_output=True, timeout=60)
        return seconds

    return once


@contextmanager
def as_it_comes() -> Iterator[None]:
    """Let the lab's libvirt start QEMU as any libvirt does, which asks it for each feature of its CPU."""
    mine = QEMU_CONF.read_text("utf-8")
    _settle("".join(line for line in mine.splitlines(keepends=True) if not line.startswith("capability_filters")))
    try:
        yield
    finally:
        _settle(mine)


def _settle(text: str) -> None:
    stop_libvirtd()  # refuses outside of a lab
    QEMU_CONF.write_text(text, "utf-8")
    start_libvirtd()


def main() -> int:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    with as_it_comes(), Host() as host:
        connection = libvirt.open(None)
        host.apply(host.plan(parse_site(SITE.format(name="keeper", image=IMAGE) + "    state: stopped\n")))
        ways = {
            "volumes + define + create": floor(host, connection),
            "vmhost apply": ours(host, host.apply_site),
            "host.plan, then host.apply": ours(host, lambda site: host.apply(host.plan(site))),
        }
        if shutil.which("virt-install"):
            image = next(use.image for use in host.images.list() if use.image.name == IMAGE)
            ways["virt-install"] = by_virt_install(str(image.path))
        rows = interleave(ways, base="volumes + define + create", rounds=rounds)
        host.apply(host.plan_delete(["keeper"], Permit(power_off=True, disks=True)))
    return report("From the call to a running domain", rows, of="vmhost apply", limit=LIMIT)


if __name__ == "__main__":
    sys.exit(main())
