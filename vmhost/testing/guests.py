"""The guests of a fake host: what happens inside while a domain runs."""

from __future__ import annotations

import ipaddress
import json
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from zlib import crc32

from vmhost.model.observed import DiskFacts, DomainFacts
from vmhost.render.parse.domain import parse_domain
from vmhost.testing.seed import configured, instance_id, read_seed
from vmhost.testing.world import Domain, System, Volume, World

if TYPE_CHECKING:
    from vmhost.testing.machine import Machine

OUTPUT: Final = "/var/log/cloud-init-output.log"
REPORTS: Final = ("/var/lib/cloud/data/result.json", "/var/lib/cloud/data/status.json")


def facts_of(domain: Domain) -> DomainFacts:
    """Return what the domain runs on, or would run on."""
    return facts_in(domain.live_xml or domain.xml)


@lru_cache(1024)
def facts_in(xml: str) -> DomainFacts:
    """Return what a definition says; a fake host asks for the same one at every call."""
    return parse_domain(xml)


def console_of(domain: Domain) -> str:
    """Return the log of its serial console, or empty."""
    return facts_of(domain).serial_log


def system_of(world: World, domain: Domain) -> System | None:
    """Return what is installed on its root disk, or None."""
    root = _root(world, facts_of(domain))
    return root.system if root else None


def come_up(machine: Machine, domain: Domain) -> None:
    """Boot to the end: cloud-init configures the system if the seed is new to it; then network and agent are up."""
    behaviour = machine.world.behaviour(domain.name)
    system = _boot(machine, domain)
    if system is None:
        machine.say(domain, "No bootable device.")
        return
    domain.up = True
    system.boots += 1
    for path in REPORTS:
        system.files.pop(path, None)
    domain.reached = _reached(machine.world, domain, system)
    domain.done_at = machine.world.now + behaviour.cloud_init_seconds
    machine.say(domain, f"Debian GNU/Linux 12 {system.hostname} ttyS0")
    machine.say(domain, f"{system.hostname} login:")
    if behaviour.agent:
        machine.emit(domain, "agent-connected")


def finish(machine: Machine, domain: Domain) -> None:
    """Let cloud-init end: its report is there, and its last words are on the console."""
    system = system_of(machine.world, domain)
    assert system is not None
    system.files.update(zip(REPORTS, _report(machine.world, domain), strict=True))
    seconds = machine.world.behaviour(domain.name).cloud_init_seconds
    said = [f"Cloud-init v. 22.4.2 running 'modules:final'. Up {seconds} seconds.", system.last_words]
    system.files[OUTPUT] = system.files.get(OUTPUT, b"") + "".join(f"{line}\n" for line in said if line).encode()
    if system.last_words:
        machine.say(domain, system.last_words)


def _boot(machine: Machine, domain: Domain) -> System | None:
    facts = facts_of(domain)
    root = _root(machine.world, facts)
    if root is None or not (root.system or root.backing):
        return None
    seed = _seed(machine.world, facts)
    if seed is not None and (root.system is None or root.system.instance_id != instance_id(seed)):
        root.system = configured(seed)
        machine.say(domain, f"cloud-init: configuring {root.system.hostname} as {root.system.instance_id}")
    if root.system is None:
        root.system = System(instance_id="none", hostname="localhost", host_key="")
    return root.system


def _root(world: World, facts: DomainFacts) -> Volume | None:
    disk = next((disk for disk in facts.disks if disk.device == "disk" and not disk.readonly), None)
    return world.volume_at(disk.source) if disk else None


def _seed(world: World, facts: DomainFacts) -> dict[str, bytes] | None:
    def read(disk: DiskFacts) -> dict[str, bytes] | None:
        volume = world.volume_at(disk.source)
        return read_seed(volume.data) if volume else None

    return next((seed for disk in facts.disks if disk.readonly and (seed := read(disk)) is not None), None)


def _reached(world: World, domain: Domain, system: System) -> list[tuple[str, str, str]]:
    """Return the address of each NIC with its MAC and bridge."""
    found: list[tuple[str, str, str]] = []
    for nic in facts_of(domain).nics:
        for address in system.addresses.get(nic.mac, []):
            given = (
                _leased(world, nic.mac, nic.source) if address == "dhcp" else str(ipaddress.ip_interface(address).ip)
            )
            if given:
                found.append((nic.mac, given, nic.source))
    return found


def _leased(world: World, mac: str, bridge: str) -> str:
    """Return the address that DHCP gives on a bridge: from the upper half of its subnet, the same for a MAC always."""
    link = world.links.get(bridge)
    if link is None or not link.addresses:
        return ""
    net = ipaddress.ip_interface(link.addresses[0]).network
    half = max(1, net.num_addresses // 2 - 2)
    return str(net[net.num_addresses // 2 + crc32(mac.encode()) % half])


def _report(world: World, domain: Domain) -> tuple[bytes, bytes]:
    """Return what cloud-init 23.4 or newer leaves as result.json and status.json (its manual, "Failure states")."""
    behaviour = world.behaviour(domain.name)
    recovered = {"WARNING": behaviour.warnings} if behaviour.warnings else {}
    stage = {"errors": [], "recoverable_errors": {}, "start": world.now, "finished": world.now}
    source = {"datasource": "DataSourceNoCloud [seed=/dev/vdz]"}
    stages = dict.fromkeys(("init-local", "init", "modules-config"), stage)
    last = {**stage, "errors": behaviour.errors, "recoverable_errors": recovered}
    result = {**source, "errors": behaviour.errors, "recoverable_errors": recovered}
    status = {**source, "stage": None, **stages, "modules-final": last}
    return json.dumps({"v1": result}, indent=1).encode(), json.dumps({"v1": status}, indent=1).encode()
