"""Operations on a fake host that the engine's tests run whole, with faults, and with kills."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from vmhost.model.netsteps import HostRoute
from vmhost.model.permit import Permit
from vmhost.model.retention import Keep
from vmhost.model.spec import Site
from vmhost.ops import sites
from vmhost.ops.host import Host
from vmhost.ops.nightwakes import Waking
from vmhost.ops.proposals import Proposal
from vmhost.plan.tuning import normal
from vmhost.render.parse.tuning import parse_tuning
from vmhost.testing import FakeHost
from vmhost.testing.guests import facts_in
from vmhost.testing.world import Link

SEED: Final = 7
HEAD = """
apiVersion: vmhost/v1
name: shop
bridges: {br0: {address: 10.0.0.1/24}}
networks: {lan: {bridge: br0, subnet: 10.0.0.0/24}}
guests:
"""
WEB = """
  web-01:
    image: debian-12
    memory: {size: 512M, max: 1G}
    disks: [{size: 4G}]
    nics: [{network: lan}]
"""


def with_three_points() -> FakeHost:
    """Return a host with a guest and three full points of it, an hour apart."""
    made = FakeHost(seed=3)
    made.add_image("debian-12")
    host = Host(ports=made.ports)
    host.apply(host.plan(site(WEB)))
    for _ in range(3):
        made.advance(3600)
        host.apply(host.backups.plan("web-01", full=True))
    return made


SLOW = WEB.replace("{size: 4G}", "{size: 4G, limits: {rate: 50M, iops: 500}}")
BIGGER = """
  web-01:
    image: debian-12
    cpus: 2
    memory: {size: 768M, max: 1G}
    disks: [{size: 6G}, {size: 1G}]
    nics: [{network: lan}]
    autostart: true
    labels: {tier: front}
"""
TWO_NICS = WEB.replace("nics: [{network: lan}]", "nics: [{network: lan}, {network: lan, id: more}]")
REACHED = """
apiVersion: vmhost/v1
name: shop
bridges: {br0: {mode: vlan-aware}}
networks: {lan: {bridge: br0, vlan: 100, subnet: 10.0.0.0/24, reach: port, reach_address: 10.0.0.250}}
guests:
"""
OTHER = WEB.replace("web-01", "db-01")
NETWORK = """
apiVersion: vmhost/v1
name: shop
bridges: {br1: {mode: vlan-aware, uplink: eno1, native: 10}}
networks:
  mgmt: {bridge: br1, vlan: 10, address: 192.0.2.5/24, routes: [{to: default, via: 192.0.2.1}]}
"""
GROWING = WEB.replace("disks:", "cpus: {count: 1, max: 2}\n    disks:")
PLACED = GROWING.replace("{count: 1, max: 2}", "{count: 2, max: 2, policy: dedicated, limit: 1.5}").replace(
    "512M", "448M"
)
HARM = Permit(power_off=True, disks=True)
PRUNE = Permit(power_off=True, disks=True, prune=frozenset({"web-01"}))


@dataclass(frozen=True)
class Scene:
    """What is there before, and the operation that is proposed.

    ``repeats``: done again it does something more, as a second point or a second restore does. ``in_parts``: each thing
    that it does stands by itself, and what it has not begun is dropped. ``systemd``: whether it runs the host.
    """

    before: str
    propose: Callable[[Host], Proposal]
    prepare: Callable[[Host], None] = lambda host: None
    repeats: bool = False
    in_parts: bool = False
    systemd: bool = False


@cache
def parse_site(text: str) -> Site:
    """Return the site of a text; read once, since scenes are run hundreds of times."""
    return sites.parse_site(text)


def _by_agent(text: str) -> str:
    return text.replace("reach: port, reach_address: 10.0.0.250", "reach: agent")


def site(*guests: str) -> Site:
    """Return the site with these guests."""
    return parse_site(HEAD + ("".join(guests) or " {}"))


def standing(text: str, *, seed: int = 3) -> FakeHost:
    """Return a host on which the guests of a site's text run."""
    fake = FakeHost(seed=seed)
    fake.add_image("debian-12")
    host = Host(ports=fake.ports)
    host.apply(host.plan(site(text)))
    return fake


def _on_trial(host: Host) -> None:
    host.apply(host.plan_network(parse_site(NETWORK)))


def _with_point(host: Host) -> None:
    host.apply(host.backups.plan("web-01"))


def _restored(host: Host) -> None:
    _with_point(host)
    host.apply(host.backups.plan_restore("web-01", power_off=True))


AUTO = """
apiVersion: vmhost/v1
name: shop
bridges: {br0: {mode: vlan-aware}}
networks: {lan: {bridge: br0, vlan: auto, range: 1000-1999, subnet: 10.0.0.0/24, reach: agent}}
guests:
  web-01: {image: debian-12, memory: 512M, disks: [{size: 4G}], nics: [{network: lan}]}
"""


GUARDED = AUTO.replace("reach: agent", "reach: agent, isolated: true, spoofing: refused, bandwidth: 10Mbit")
GUARDED_TWICE = GUARDED.replace("nics: [{network: lan}]", "nics: [{network: lan}, {network: lan, id: more}]")


UEFI = WEB.replace("disks:", "firmware: uefi\n    disks:")
OFF = WEB.replace("disks:", "state: stopped\n    disks:")


def with_snapshots(*names: str) -> Callable[[Host], None]:
    """Return what takes snapshots of web-01."""

    def prepare(host: Host) -> None:
        for name in names:
            host.apply(host.snapshots.plan_create("web-01", name))

    return prepare


def _go_back(host: Host) -> Proposal:
    """Go back; where a try has done so, there is nothing to do any more."""
    if len(host.snapshots.list()) > 2:
        return host.plan(site(UEFI))
    return host.snapshots.plan_revert("web-01", "one", HARM)


def _wake(host: Host, at: str = "22:00") -> Proposal:
    return host.backups.nightly.plan_install(
        Waking(["/usr/bin/vmhost"], at, on_failure="" if at == "22:00" else "alarm")
    )


def _woken(host: Host) -> None:
    host.apply(_wake(host))


def _with_old_points(host: Host) -> None:
    _with_point(host)
    for full in (False, True):
        host.apply(host.backups.plan("web-01", full=full))


SCENES: Mapping[str, Scene] = {
    "prune points": Scene(
        WEB, lambda host: host.backups.plan_prune((), Keep(last=1)), prepare=_with_old_points, in_parts=True
    ),
    "take a snapshot": Scene(UEFI, lambda host: host.snapshots.plan_create("web-01", "new"), with_snapshots("one")),
    "take a snapshot of a stopped guest": Scene(OFF, lambda host: host.snapshots.plan_create("web-01", "new")),
    "go back to a snapshot": Scene(UEFI, _go_back, with_snapshots("one", "two")),
    "delete the newest snapshot": Scene(
        WEB, lambda host: host.snapshots.plan_delete("web-01", "two"), with_snapshots("one", "two")
    ),
    "delete a snapshot below": Scene(
        WEB, lambda host: host.snapshots.plan_delete("web-01", "one"), with_snapshots("one", "two", "three")
    ),
    "delete a snapshot of a stopped guest": Scene(
        OFF, lambda host: host.snapshots.plan_delete("web-01", "one"), with_snapshots("one", "two")
    ),
    "create": Scene("", lambda host: host.plan(site(WEB))),
    "create beside another": Scene(OTHER, lambda host: host.plan(site(OTHER, WEB))),
    "change": Scene(WEB, lambda host: host.plan(site(BIGGER))),
    "plug in a NIC": Scene(WEB, lambda host: host.plan(site(TWO_NICS))),
    "plug in memory": Scene(WEB, lambda host: host.plan(site(WEB.replace("512M", "768M")))),
    "limit a disk": Scene(WEB, lambda host: host.plan(site(SLOW))),
    "let a disk go": Scene(SLOW, lambda host: host.plan(site(WEB))),
    "take out a NIC": Scene(TWO_NICS, lambda host: host.plan(site(WEB))),
    "place beside another": Scene(OTHER + GROWING, lambda host: host.plan(site(OTHER, PLACED))),
    "pin beside another": Scene(OTHER + WEB, lambda host: host.plan_pin("web-01", policy="isolated")),
    "float again": Scene(OTHER + PLACED, lambda host: host.plan_delete(["web-01"], HARM)),
    "change with a restart": Scene(WEB, lambda host: host.plan(site(BIGGER), Permit(stop=True))),
    "create behind an access port": Scene("", lambda host: host.plan(parse_site(REACHED + WEB))),
    "give up an access port": Scene(REACHED + WEB, lambda host: host.plan(parse_site(_by_agent(REACHED + WEB)))),
    "delete the last behind an access port": Scene(REACHED + WEB, lambda host: host.plan_delete(["web-01"], HARM)),
    "replace": Scene(WEB, lambda host: host.plan(site(BIGGER), Permit(replace=frozenset({"web-01"})))),
    "prune": Scene(WEB + OTHER, lambda host: host.plan(site(OTHER), PRUNE)),
    "delete": Scene(WEB + OTHER, lambda host: host.plan_delete(["web-01"], HARM)),
    "a network on trial": Scene("", lambda host: host.plan_network(parse_site(NETWORK))),
    "a network that is confirmed": Scene("", Host.plan_confirmation, prepare=_on_trial),
    "create in a VLAN of a range": Scene("", lambda host: host.plan(parse_site(AUTO))),
    "change to a VLAN of another range": Scene(
        AUTO, lambda host: host.plan(parse_site(AUTO.replace("1000-1999", "7-9")))
    ),
    "create with guards": Scene("", lambda host: host.plan(parse_site(GUARDED))),
    "add guards and limits": Scene(AUTO, lambda host: host.plan(parse_site(GUARDED))),
    "take guards and limits away": Scene(GUARDED, lambda host: host.plan(parse_site(AUTO))),
    "attach a NIC": Scene(
        GUARDED, lambda host: host.nics.plan_attach(parse_site(GUARDED), "web-01", network="lan", id="more")
    ),
    "detach a NIC": Scene(
        GUARDED_TWICE, lambda host: host.nics.plan_detach(parse_site(GUARDED_TWICE), "web-01", "more")
    ),
    "delete one with guards": Scene(GUARDED, lambda host: host.plan_delete(["web-01"], HARM)),
    "delete the last in a VLAN": Scene(AUTO, lambda host: host.plan_delete(["web-01"], HARM)),
    "take a first point": Scene(WEB, lambda host: host.backups.plan("web-01"), repeats=True),
    "take an increment": Scene(WEB, lambda host: host.backups.plan("web-01"), prepare=_with_point, repeats=True),
    "take a compressed increment": Scene(
        WEB, lambda host: host.backups.plan("web-01", compression="zstd"), prepare=_with_point, repeats=True
    ),
    "restore in place": Scene(
        WEB, lambda host: host.backups.plan_restore("web-01", power_off=True), prepare=_with_point, repeats=True
    ),
    "restore in place with UEFI": Scene(
        UEFI, lambda host: host.backups.plan_restore("web-01", power_off=True), prepare=_with_point, repeats=True
    ),
    "confirm a restore": Scene(WEB, lambda host: host.backups.plan_confirm("web-01"), prepare=_restored, repeats=True),
    "wake the night's work": Scene("", _wake, systemd=True),
    "wake it at another time": Scene("", lambda host: _wake(host, "Mon..Fri 21:00"), prepare=_woken, systemd=True),
    "wake it no more": Scene("", lambda host: host.backups.nightly.plan_remove(), prepare=_woken, systemd=True),
    "delete the last": Scene(WEB, lambda host: host.plan_delete(["web-01"], HARM)),
}


def stage(scene: Scene) -> FakeHost:
    """Return a fake host as the scene begins; equal calls give equal hosts."""
    return FakeHost(seed=SEED, world=pickle.loads(_begun(scene)))


@cache
def _begun(scene: Scene) -> bytes:
    """Return the world in which the scene begins, made once."""
    fake = FakeHost(seed=SEED)
    fake.add_image("debian-12")
    fake.add_link(Link("eno1", kind="", mac="52:54:00:00:00:01", addresses=["192.0.2.5/24"]))
    fake.world.systemd = scene.systemd
    fake.world.routes.append(HostRoute("0.0.0.0/0", "192.0.2.1", "eno1", "", 0, 3, 0))
    if scene.before:
        host = Host(ports=fake.ports)
        whole = scene.before if "apiVersion" in scene.before else HEAD + scene.before
        host.apply(host.plan(parse_site(whole)))
    scene.prepare(Host(ports=fake.ports))
    return pickle.dumps(fake.world)


def shape(state: Mapping[str, Any]) -> Any:
    """Return a state without what every run draws anew, so that a second try can be compared with a first one."""
    names = {uuid: domain["name"] for uuid, domain in state["domains"].items()}

    def named(text: str) -> str:
        for uuid, name in names.items():
            text = text.replace(uuid, name)
        return text

    return {
        "domains": sorted(
            (
                *(domain["name"], domain["state"], *_flags(domain), _held(domain["xml"]), _held(domain["live"])),
                *(named(disk.source) for xml in (domain["xml"], domain["live"]) if xml for disk in facts_in(xml).disks),
            )
            for domain in state["domains"].values()
        ),
        "volumes": sorted(
            (pool, named(name), volume["capacity"], volume["format"], *map(named, volume["backing"]))
            for pool, content in state["pools"].items()
            for name, volume in content["volumes"].items()
        ),
        "pools": sorted(state["pools"]),
        "links": sorted(name for name in state["links"] if not name.startswith("vh")),
        "network": (state["routes"], state["network"]),
        "timers": state["timers"],
        "namespaces": state["namespaces"],
        "taps": sum(name.startswith("vh") for name in state["links"]),
        "journals": state["journals"],
        "locks": state["locks"],
        "reservations": state["reservations"],
        "guards": [(guard.reached, len(guard.marks)) for guard in state["guards"]],
        "isolated": len(state["isolated"]),
        "points": [(named(key).rpartition("-")[2], published) for _, key, published in state["points"]],
        "backups": sorted((len(domain["backup"][0]), domain["backup"][1]) for domain in state["domains"].values()),
        "limits": sorted("<bandwidth>" in domain["xml"] for domain in state["domains"].values()),
        "memory": sorted(
            (facts_in(domain["xml"]).memory, domain["live"].count("ua-memory-")) for domain in state["domains"].values()
        ),
        "limits of disks": sorted("<iotune>" in domain["xml"] for domain in state["domains"].values()),
        "orphaned consoles": sum(not any(uuid in path for uuid in names) for path in state["consoles"]),
    }


def _flags(domain: Mapping[str, Any]) -> tuple[bool, bool, bool]:
    return domain["persistent"], domain["autostart"], bool(domain["saved"])


def _held(xml: str) -> Any:
    """Return how a domain is held; a pin to every pCPU of the host, which libvirt keeps for none, is none."""
    return normal(parse_tuning(xml), frozenset(range(8))) if xml else None


def strict(state: Mapping[str, Any]) -> Any:
    """Return a whole state without what a guest that was stopped and started again cannot have as it was."""
    domains = {uuid: {key: domain[key] for key in domain if key != "live"} for uuid, domain in state["domains"].items()}
    return {**state, "domains": domains}
