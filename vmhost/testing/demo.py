"""The host behind ``-c fake:demo``: a dozen guests of two sites and some foreign ones, for a look around.

``fake:day``, which ``vmhost tui --demo`` shows, is the same after two days of work.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from lxml import etree

from vmhost.model.errors import UsageError
from vmhost.model.identity import GuestIdentity, volume_name
from vmhost.model.observed import DomainState
from vmhost.model.outcome import JobRecord
from vmhost.model.spec import DiskSpec
from vmhost.model.vlans import port_vlans
from vmhost.ports import Ports
from vmhost.testing import builders, savefile
from vmhost.testing.builders import GIB, POOL, POOL_PATH
from vmhost.testing.host import FakeHost
from vmhost.testing.seed import FakeSeedMaker
from vmhost.testing.world import Link, Volume
from vmhost.testing.xml import E, write

URI: Final = "fake:demo"
DAY: Final = "fake:day"
CAPTURED: Final = Path(__file__).parent / "captured" / "day.json"
VLANS: Final = (300, 310)
"""What the guests of site lab are in."""
STATE: Final = "VMHOST_FAKE_STATE"


@dataclass(frozen=True)
class _Guest:
    """A guest of the demonstration. ``data`` is the size of a second disk in GiB; ``more`` are fields of its spec."""

    name: str
    site: str = "shop"
    running: bool = True
    memory: str = "2G"
    cpus: int = 2
    disk: int = 20
    data: int = 0
    more: dict[str, Any] = field(default_factory=dict)


_GUESTS: Final = (
    _Guest("web-01", more={"autostart": True, "labels": {"tier": "front"}}),
    _Guest("web-02", more={"autostart": True, "labels": {"tier": "front"}}),
    _Guest("web-03", running=False, more={"labels": {"tier": "front"}}),
    _Guest("db-01", memory="8G", cpus=4, data=200, more={"protect": True, "autostart": True, "firmware": "uefi"}),
    _Guest("db-02", memory="8G", cpus=4, data=200, more={"protect": True, "firmware": "uefi"}),
    _Guest("cache-01", memory="4G"),
    _Guest("mail-01", running=False, data=50),
    _Guest("build-01", memory="16G", cpus=8, disk=80),
    _Guest("lab-01", site="lab", memory="1G", cpus=1),
    _Guest("lab-02", site="lab", memory="1G", cpus=1),
    _Guest("lab-03", site="lab", memory="1G", cpus=1),
    _Guest("vpn-01", site="lab", memory="512M", cpus=1, disk=4),
)


def demo_ports(uri: str = URI) -> Ports:
    """Return the ports of a fake host by its URI.

    It lives as long as what is returned; with ``VMHOST_FAKE_STATE=FILE`` in the environment it is kept in that file, so
    that several processes, one after the other, find the same host.

    :raises UsageError: there is no fake host of that name. :raises DamagedData: the file holds none.
    """
    make = {URI: demo_host, DAY: day_host}.get(uri)
    if make is None:
        raise UsageError("there is no such fake host", subject=uri, hint=f"vmhost -c {URI} guest list")
    name = os.environ.get(STATE)
    if not name:
        return make().ports
    path = Path(name)
    world = savefile.load(path)
    if world is None:
        host = make()
        savefile.store(path, host.world)
        world = host.world
    return FakeHost(world=world, speed=1.0, keep=lambda changed: savefile.store(path, changed)).ports


def demo_host(*, speed: float = 1.0) -> FakeHost:
    """Return the host of the demonstration.

    :param speed: seconds of its time in a real second while somebody listens to its events; 0: time stands still.
    """
    host = FakeHost(speed=speed)
    host.world.hostname, host.world.kvm, host.world.cpus, host.world.memory = "demo", True, 24, 96 * GIB
    _furnish(host)
    for number, guest in enumerate(_GUESTS, 11):
        _make(host, guest, number)
    _add_foreign(host)
    host.advance(120)
    _mishaps(host)
    _remember(host)
    host.advance(3600)
    return host


def day_host(*, speed: float = 1.0) -> FakeHost:
    """Return the same host after two days of work, ``speed`` as for :func:`demo_host`.

    Services run in its guests, some have points, snapshots and a drill behind them, and not all is well. It is kept as
    it was captured, since all that needs rooms above this one: ``tests/testing/test_day.py`` makes it anew.
    """
    world = savefile.load(CAPTURED)
    assert world is not None
    return FakeHost(world=world, speed=speed)


def _furnish(host: FakeHost) -> None:
    for name in ("debian-12", "debian-13", "ubuntu-24.04"):
        host.world.images.append(builders.image(name))
    host.hypervisor.create_pool(POOL, POOL_PATH)
    host.hypervisor.create_pool("archive", "/srv/archive")
    host.add_volume("archive", Volume("nas-data.qcow2", 500 * GIB, "qcow2"))
    host.links.create_bridge("br0", alias="vmhost:shop", mtu=1500, address="10.20.0.1/24")
    host.links.create_bridge("br1", alias="vmhost:lab", mtu=1500, address="", vlan_aware=True)
    host.add_link(Link("eno1", kind="", mac="3c:ec:ef:12:34:56", master="br1"))
    host.links.set_port_vlans("eno1", port_vlans(0, VLANS))
    host.hook.install()
    host.hook.restart_daemon()
    host.add_link(Link("eno2", kind="", mac="3c:ec:ef:12:34:57"))
    host.add_link(Link("docker0", mac="02:42:5d:aa:10:01", addresses=["172.17.0.1/16"]))
    for site in ("shop", "lab"):
        host.keys.store(site, host.entropy.keypair(f"vmhost {site}"))


def _make(host: FakeHost, guest: _Guest, number: int) -> None:
    """Make a guest as vmhost would: volumes, seed, domain, and start it."""
    disks = [DiskSpec(id="root", size=guest.disk * GIB)]
    disks += [DiskSpec(id="data", size=guest.data * GIB)] if guest.data else []
    spec = builders.guest(guest.name, cpus={"count": guest.cpus}, memory=guest.memory, disks=tuple(disks), **guest.more)
    who = builders.identity(spec, number=number)
    if guest.site == "lab":
        who = _on_the_lab(who, VLANS[number % len(VLANS)])
    about = builders.metadata(spec, who, site_name=guest.site)
    base = str(host.world.images[0].path)
    for disk in disks:
        backing = base if disk.id == "root" else ""
        volume = Volume(
            volume_name(who.uuid, disk.id or "root"), disk.size, "qcow2", backing, "qcow2" if backing else ""
        )
        host.add_volume(POOL, volume)
    seed = _seed(host, who, guest.site)
    host.add_volume(POOL, Volume(volume_name(who.uuid, "seed", "iso"), len(seed), "raw", data=seed))
    host.behave(guest.name, boot_seconds=3.0, cloud_init_seconds=2.0)
    bridge = "br1" if guest.site == "lab" else "br0"
    host.hypervisor.define(builders.domain_xml(spec, who, about, bridge=bridge, kind="kvm"))
    host.hypervisor.set_autostart(who.uuid, spec.autostart)
    if guest.running:
        host.hypervisor.start(who.uuid)


def _on_the_lab(who: GuestIdentity, vlan: int) -> GuestIdentity:
    nics = (replace(nic, address=nic.address.replace("10.20.", "10.30.")) for nic in who.nics)
    return replace(who, nics=tuple(replace(nic, pvid=vlan, bridge="br1", reach="agent") for nic in nics))


def _seed(host: FakeHost, who: GuestIdentity, site: str) -> bytes:
    login = {"name": "vmhost", "ssh_authorized_keys": [host.keys.public(site)], "sudo": "ALL=(ALL) NOPASSWD:ALL"}
    config = {"users": [login], "ssh_keys": {"ed25519_public": who.host_key}}
    nics = {
        f"net{number}": {"match": {"macaddress": nic.mac}, "addresses": [nic.address]}
        for number, nic in enumerate(who.nics)
    }
    return FakeSeedMaker().make(
        {
            "meta-data": json.dumps({"instance-id": who.instance_id, "local-hostname": who.name}).encode(),
            "user-data": b"#cloud-config\n" + json.dumps(config).encode(),
            "network-config": json.dumps({"version": 2, "ethernets": nics}).encode(),
        }
    )


def _add_foreign(host: FakeHost) -> None:
    """Add what others made: with virt-manager, by hand, long ago."""
    for name, machine, memory, running in (
        ("jenkins", "q35", 8, True),
        ("legacy-nas", "pc", 4, False),
        ("router", "q35", 1, True),
    ):
        host.add_volume("archive", Volume(f"{name}.qcow2", 40 * GIB, "qcow2"))
        host.hypervisor.define(write(_foreign(name, machine, memory)))
        if running:
            host.hypervisor.start(builders.uuid_of(name))


def _foreign(name: str, machine: str, memory: int) -> etree._Element:
    return E.domain(
        E.name(name),
        E.uuid(builders.uuid_of(name)),
        E.memory(str(memory), unit="GiB"),
        E.vcpu("2"),
        E.os(E.type("hvm", arch="x86_64", machine=machine)),
        E.devices(
            E.disk(
                E.driver(name="qemu", type="qcow2"),
                E.source(file=f"/srv/archive/{name}.qcow2"),
                E.target(dev="vda", bus="virtio"),
                type="file",
                device="disk",
            ),
            E.interface(
                E.mac(address=builders.mac_of(name)),
                E.source(bridge="docker0"),
                E.model(type="virtio"),
                type="bridge",
            ),
            E.console(type="pty"),
        ),
        type="kvm",
    )


def _mishaps(host: FakeHost) -> None:
    """Let a few guests be in other states than running or off."""
    for name, state in (("lab-02", DomainState.PAUSED), ("vpn-01", DomainState.CRASHED)):
        domain = host.world.domains[host.domain(name).uuid]
        domain.state = state
        if not state.active:
            domain.live_xml, domain.up, domain.reached = "", False, []
    host.save_memory("lab-03")


def _remember(host: FakeHost) -> None:
    """Let there be a past: an image that was built, a site that was applied, one that failed."""
    now = host.world.now
    history = host.history
    for name, kind, subject, state, error, age in (
        ("20260101-000100-a1", "image build", "debian-12", "done", "", 110.0),
        ("20260101-000140-b2", "apply", "shop", "done", "", 70.0),
        ("20260101-000150-c3", "apply", "lab", "failed", "lab-04: image alpine-3 is not here", 30.0),
    ):
        history.start(JobRecord(name, kind, subject, "running", now - age, pid=4242, user="ann"))
        history.log(name, f"{kind} {subject}")
        history.end(name, state=state, error=error)
