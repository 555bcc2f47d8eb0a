"""What else happened on the host of a case after before.yaml: a line of its ``world.txt`` each, ``WORD ARGUMENTS``."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace

from vmhost.model.observed import Neighbour
from vmhost.model.units import parse_size
from vmhost.model.vlans import port_vlans
from vmhost.render.parse.domain import parse_domain
from vmhost.testing import FakeHost, builders
from vmhost.testing.world import Link, Volume


def happen(fake: FakeHost, text: str) -> None:
    """Let everything in a text happen."""
    for line in text.splitlines():
        word, *arguments = shlex.split(line, comments=True) or [""]
        if word:
            HAPPENINGS[word](fake, *arguments)


def _edit(fake: FakeHost, name: str, pattern: str, text: str) -> None:
    """Somebody changed a definition with virsh edit."""

    def change(xml: str) -> str:
        changed = re.sub(pattern, text, xml, flags=re.DOTALL)
        assert changed != xml, f"{pattern} is not in the definition of {name}"
        return changed

    fake.edit(name, change)


def _foreign(fake: FakeHost, name: str, mac: str = "52:54:00:00:00:99") -> None:
    """Somebody made a guest with other tools."""
    spec = builders.guest(name, nics=[{"network": "lan", "id": "lan", "mac": mac}])
    xml = builders.domain_xml(spec, builders.identity(spec), None)
    fake.hypervisor.define(re.sub(r"<alias [^>]*>", "", xml))


def _other_site(fake: FakeHost, name: str, number: str = "77") -> None:
    """Another site has a guest, with 10.20.0.NUMBER."""
    spec = builders.guest(name)
    who = builders.identity(spec, number=int(number))
    fake.hypervisor.define(builders.domain_xml(spec, who, builders.metadata(spec, who, site_name="lab")))


def _command(fake: FakeHost, name: str, command: str) -> None:
    """A command changed a guest past its site file."""
    _edit(fake, name, r"(<vmhost:applied [^>]*?)(/?>)", rf'\1 command="{command}"\2')


def _newer(fake: FakeHost, name: str) -> None:
    """A newer vmhost wrote a guest's metadata."""
    _edit(fake, name, r'(<vmhost:guest [^>]*version=)"1"', r'\1"2"')


def _stop(fake: FakeHost, name: str) -> None:
    """Somebody powered a guest off."""
    fake.hypervisor.power_off(fake.domain(name).uuid)


def _autostart(fake: FakeHost, name: str) -> None:
    """Somebody let a guest start with the host."""
    fake.hypervisor.set_autostart(fake.domain(name).uuid, True)


def _snapshots(fake: FakeHost, name: str, count: str) -> None:
    """Somebody made snapshots."""
    fake.world.domains[fake.domain(name).uuid].snapshots = int(count)


def _grow(fake: FakeHost, name: str, disk: str, size: str) -> None:
    """Somebody grew a disk, with virsh blockresize while the guest runs."""
    domain = fake.domain(name)
    volume = f"{domain.uuid}-{disk}.qcow2"
    if domain.state.active:
        fake.hypervisor.resize_disk(domain.uuid, fake.world.pools["vmhost"].path_of(volume), parse_size(size))
    else:
        fake.hypervisor.resize_volume("vmhost", volume, parse_size(size))


def _lose(fake: FakeHost, name: str, disk: str) -> None:
    """Somebody deleted a volume past libvirt, which would not have let it go while its guest runs."""
    kind = "iso" if disk == "seed" else "qcow2"
    del fake.world.pools["vmhost"].volumes[f"{fake.domain(name).uuid}-{disk}.{kind}"]


def lay_over(fake: FakeHost, name: str, disk: str, path: str = "tp", noted: str = "") -> str:
    """Somebody made a snapshot with virsh snapshot-create-as --disk-only: a guest goes on in an overlay, whose path is
    returned. A name without ``/`` is put beside the disk as libvirt does; ``noted``: the definition says what is below.
    """
    domain, alias = fake.domain(name), f"ua-disk-{disk}"
    facts = next(one for one in parse_domain(domain.xml).disks if one.alias == alias)
    top = path if "/" in path else f"{facts.source.rpartition('.')[0]}.{path}"
    place, _, file = top.rpartition("/")
    pool = next((pool for pool in fake.world.pools.values() if pool.path == place), None)
    below = fake.world.volume_at(facts.source)
    assert below is not None
    if pool is not None:
        pool.volumes[file] = replace(below, name=file, backing=facts.source, backing_format="qcow2")
    store = f"<backingStore type='file'><format type='qcow2'/><source file='{facts.source}'/></backingStore>"
    found = fake.world.domains[domain.uuid]
    for which, note in (("xml", bool(noted)), ("live_xml", True)):
        text = getattr(found, which)
        old = re.search(rf"""<source file=["']{re.escape(facts.source)}["'][^>]*/>""", text)
        if old is not None:
            new = f"<source file='{top}'/>{store if note else ''}"
            setattr(found, which, text.replace(old[0], new))
    return top


def _defined_back(fake: FakeHost, name: str, disk: str) -> None:
    """Somebody defined a guest anew from an old text, while it runs on in what it had."""
    uuid = fake.domain(name).uuid
    _edit(fake, name, rf"""/{uuid}-{disk}\.tp(["'])""", rf"/{uuid}-{disk}.qcow2\g<1>")


def _link(fake: FakeHost, name: str, kind: str, alias: str = "", *addresses: str) -> None:
    """There is a link that vmhost did not make now."""
    fake.add_link(Link(name, kind="" if kind == "hardware" else kind, alias=alias, addresses=list(addresses)))


def _link_down(fake: FakeHost, name: str) -> None:
    fake.world.links[name].up = False


def _pool(fake: FakeHost, name: str) -> None:
    """Somebody made a storage pool."""
    fake.hypervisor.create_pool(name, f"/srv/{name}")


def _pool_stopped(fake: FakeHost, name: str) -> None:
    """Somebody stopped a storage pool."""
    fake.world.pools[name].active = False


def _volume(fake: FakeHost, pool: str, name: str, size: str) -> None:
    """Somebody made a volume."""
    fake.add_volume(pool, Volume(name, parse_size(size), "qcow2"))


def _neighbour(fake: FakeHost, address: str, mac: str, link: str) -> None:
    """A machine on the wire was seen."""
    fake.world.neighbours.append(Neighbour(address, mac, link))


def _image(fake: FakeHost, name: str, size: str = "2G", firmware: str = "bios,uefi") -> None:
    """There is another image."""
    fake.add_image(name, virtual_size=parse_size(size))
    fake.world.images[-1] = replace(fake.world.images[-1], firmware=frozenset(firmware.split(",")))


def _port_vlan(fake: FakeHost, name: str, pvid: str) -> None:
    """Somebody moved the port of a running guest to another VLAN."""
    nic = parse_domain(fake.domain(name).xml).nics[0]
    fake.links.set_port_vlans(nic.tap, port_vlans(int(pvid)))


def _unplug(fake: FakeHost, name: str, number: str) -> None:
    """Somebody took a NIC out of a running guest; its definition still has it."""
    nic = parse_domain(fake.domain(name).xml).nics[int(number)]
    fake.hypervisor.unplug_nic(fake.domain(name).uuid, nic.mac, timeout=10)


def _no_namespace(fake: FakeHost, name: str) -> None:
    """Somebody deleted a network namespace; the veth pair with an end in it goes, too."""
    fake.world.namespaces.remove(name)
    for link in [link for link in fake.world.links.values() if link.kind == "veth"]:
        del fake.world.links[link.name]


def _not_isolated(fake: FakeHost, name: str) -> None:
    """Somebody took the isolation of a port away."""
    fake.links.isolate_port(parse_domain(fake.domain(name).xml).nics[0].tap, False)


def _guards_lost(fake: FakeHost) -> None:
    """Somebody emptied the packet filter."""
    fake.world.nft = ""


HAPPENINGS: Mapping[str, Callable[..., None]] = {
    "edit": _edit,
    "foreign": _foreign,
    "other-site": _other_site,
    "command": _command,
    "newer": _newer,
    "power-off": _stop,
    "autostart": _autostart,
    "snapshots": _snapshots,
    "managed-save": lambda fake, name: fake.save_memory(name),
    "grow": _grow,
    "lose": _lose,
    "overlay": lay_over,
    "defined-back": _defined_back,
    "link": _link,
    "link-down": _link_down,
    "pool": _pool,
    "pool-stopped": _pool_stopped,
    "volume": _volume,
    "neighbour": _neighbour,
    "port-vlan": _port_vlan,
    "unplug": _unplug,
    "no-namespace": _no_namespace,
    "no-hook": lambda fake: fake.hook.remove(),
    "image": _image,
    "not-isolated": _not_isolated,
    "guards-lost": _guards_lost,
}
