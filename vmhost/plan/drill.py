"""A drill of a point: what is made for it, what is waited for, and how all of it goes again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_interface
from typing import Literal

from vmhost.model.awaitguest import AwaitGuest
from vmhost.model.drills import DRILL, SITE, DrillDisk, DrillFiles, EndDrill, LayDrill, LiftDrill, SeeDrill
from vmhost.model.errors import DamagedData, NoCapacity, Refused
from vmhost.model.identity import GuestIdentity, GuestMetadata, NicIdentity, console_log, tap_name
from vmhost.model.netsteps import CreateBridge, DeleteBridge
from vmhost.model.observed import Observed
from vmhost.model.plan import Change, Plan, Planned
from vmhost.model.points import Point
from vmhost.model.spec import GuestSpec, HostSpec
from vmhost.model.steps import CloseAccess, DefineDomain, OpenAccess, StartDomain, Step
from vmhost.model.units import format_cpuset, format_size
from vmhost.plan.applied import read_spec
from vmhost.plan.ledger import Ledger, ledger_of
from vmhost.plan.overhead import overhead_of
from vmhost.render.drill import DrillDomain, drill_xml
from vmhost.render.parse.domain import QEMU_NS, SEED_ALIAS, parse_domain, properties
from vmhost.render.parse.metadata import parse_metadata
from vmhost.render.parse.reading import look_into

MTU = 1500


@dataclass(frozen=True, slots=True)
class DrillRequest:
    """Everything that a plan of a drill rests on.

    ``xml`` is the definition that the point holds; ``uuid`` and ``ports``, one for each of :func:`user_macs`, were
    drawn for this drill. ``disks`` (for a guest whose own directory is gone), ``logs`` and ``sockets`` are directories
    that QEMU may use.
    """

    point: Point
    xml: str
    observed: Observed
    host: HostSpec | None
    uuid: str
    ports: tuple[int, ...]
    disks: str
    logs: str
    sockets: str


@dataclass(frozen=True, slots=True)
class _Nic:
    """A NIC of a drill: who it was, and its bridge, empty on QEMU's user network; ``access`` the host's address."""

    identity: NicIdentity
    bridge: str = ""
    tap: str = ""
    access: str = ""


def plan_drill(request: DrillRequest) -> Plan:
    """Return the plan of a drill. What it makes goes in the end, whatever became of the guest.

    :raises Refused: nobody knows by what to see that the guest is there; :raises NoCapacity: there is no memory for it
        that nobody was promised; :raises DamagedData: the point does not say what the guest was.
    """
    metadata = parse_metadata(request.xml)
    spec = read_spec(metadata.spec) if metadata else None
    if metadata is None or spec is None:
        text = "does not say what the guest was"
        raise DamagedData(text, subject=request.point.id, hint=f"vmhost backup verify {request.point.name}")
    ledger = ledger_of(request.observed, request.host)
    _check_memory(request, ledger)
    nics = tuple(_nics(request, metadata))
    files = _files(request)
    see = _see(request, metadata, spec, nics)
    steps = _Steps(request.point.name)
    steps.make(
        LayDrill(request.uuid, request.point.ref, files, metadata.identity.instance_id, spec.name),
        LiftDrill(request.uuid, files),
        f"lay overlays on the disks of {request.point.id}, which nothing writes to",
    )
    for nic in nics:
        if nic.bridge:
            make = CreateBridge(nic.bridge, SITE, MTU, sealed=True)
            steps.make(make, DeleteBridge(nic.bridge, SITE), f"network {nic.identity.network} that leads nowhere")
        if nic.access:
            way = (nic.bridge, 0, nic.access, MTU, SITE)
            steps.make(OpenAccess(*way), CloseAccess(*way[:3], SITE), "a namespace of its own that reaches it")
    name = drill_name(request.uuid)
    end = EndDrill(request.uuid, name, _log(request))
    domain = _domain(request, nics, files, ledger)
    steps.make(DefineDomain(request.uuid, name, drill_xml(request.xml, domain)), end, f"define {name}")
    steps.make(StartDomain(request.uuid, name), end, "start it")
    return Plan(request.point.site, tuple(steps.made), (_looks(see, request.point.name), *steps.ending()))


def drill_name(uuid: str) -> str:
    """Return the name of a drill's domain."""
    return f"{DRILL}{uuid[:8]}"


class _Steps:
    """The steps that make a drill, and the same backwards that end it."""

    def __init__(self, guest: str) -> None:
        self._guest = guest
        self.made: list[Planned] = []

    def make(self, do: Step, undo: Step, text: str) -> None:
        self.made.append(Planned(do, undo, Change.LIVE, self._subject, f"{self._subject}: {text}"))

    def ending(self) -> Iterator[Planned]:
        """Yield what takes all of it away, once for each; apart from the guest, whose failure does not end it."""
        for undo in dict.fromkeys(item.undo for item in reversed(self.made) if item.undo):
            yield Planned(undo, None, Change.LIVE, self._subject, f"{self._subject}: {_ENDS[undo.kind]}")

    @property
    def _subject(self) -> str:
        return f"drill of {self._guest}"


_ENDS: Mapping[str, str] = {
    "end-drill": "power it off and forget it",
    "close-access": "take the namespace away",
    "delete-bridge": "take the network away",
    "lift-drill": "delete the overlays",
}


def _looks(see: SeeDrill, guest: str) -> Planned:
    wanted = [f"until it says {see.says!r}"] if see.says else []
    wanted += {"ssh": ["for SSH with its own host key"], "agent": ["for its agent"]}.get(see.ready.by, [])
    wanted += [f"for the probes of {service.name}" for service in see.services]
    return Planned(see, None, Change.LIVE, guest, f"{guest}: wait {' and '.join(wanted)}")


def _check_memory(request: DrillRequest, ledger: Ledger) -> None:
    """:raises NoCapacity: what is left over beside all promises is too little."""
    facts = parse_domain(request.xml)
    need = facts.max_memory + overhead_of(
        facts.max_memory, facts.max_vcpus, len(facts.disks) + len(facts.nics), kvm=request.observed.host.kvm
    )
    free = max(0, ledger.budget - ledger.promised)
    if ledger.memory and need > free:
        text = f"a drill needs {format_size(need)} of memory, and {format_size(free)} are promised to nobody"
        raise NoCapacity(text, subject=request.point.name, hint="vmhost host capacity")


def _nics(request: DrillRequest, metadata: GuestMetadata) -> Iterator[_Nic]:
    known = {nic.mac: nic for nic in metadata.identity.nics}
    root = look_into(request.xml)
    macs = [mac.get("address", "") for mac in root.findall("devices/interface/mac")]
    for index, mac in enumerate(macs):
        old = known.get(mac, NicIdentity(f"nic{index}", "", mac))
        bridge = f"vd{request.uuid.replace('-', '')[:8]}-{index}"
        access = _beside(old.address) if old.address else ""
        reach = ("port", access) if access else ("agent", "")
        new = replace(old, bridge=bridge, pvid=0, tagged="", reach=reach[0], via=reach[1])
        yield _Nic(new, bridge, tap_name(request.uuid, index), access)
    for index, mac in enumerate(user_macs(request.xml)):
        if mac in known:
            yield _Nic(replace(known[mac], ssh_port=request.ports[index] if index < len(request.ports) else 0))


def user_macs(xml: str) -> list[str]:
    """Return the MACs of the NICs that a definition has on QEMU's user network."""
    arguments = look_into(xml).findall(f"{QEMU_NS}commandline/{QEMU_NS}arg")
    found = [properties(argument.get("value", "")) for argument in arguments]
    return [one["mac"] for one in found if "mac" in one and "netdev" in one]


def _beside(address: str) -> str:
    """Return an address of the same subnet, ``ip/prefix``; empty where there is none: the guest is alone there."""
    interface = ip_interface(address)
    for other in interface.network.hosts():
        if other != interface.ip:
            return f"{other}/{interface.network.prefixlen}"
    return ""


def _files(request: DrillRequest) -> DrillFiles:
    short, directory = request.uuid[:8], _directory(request)
    disks = tuple(
        DrillDisk(
            disk.file,
            f"{directory}/{request.uuid}-{index}.qcow2",
            f"{request.sockets}/{DRILL}{short}-{index}.sock",
            disk.capacity,
        )
        for index, disk in enumerate(request.point.disks)
    )
    nvram = f"{directory}/{request.uuid}-nvram.fd" if request.point.nvram else ""
    seeded = any(disk.alias == SEED_ALIAS for disk in parse_domain(request.xml).disks)
    return DrillFiles(disks, nvram, f"{directory}/{request.uuid}-seed.iso" if seeded else "")


def _directory(request: DrillRequest) -> str:
    """Return where the overlays go: where the guest's own disks are, if that still is a pool, since it has room."""
    own = request.point.disks[0].source.rpartition("/")[0]
    return own if any(pool.path == own for pool in request.observed.pools) else request.disks


def _see(request: DrillRequest, metadata: GuestMetadata, spec: GuestSpec, nics: tuple[_Nic, ...]) -> SeeDrill:
    reachable = any(nic.access or (not nic.bridge and nic.identity.ssh_port) for nic in nics)
    by: Literal["ssh", "agent", "none"] = spec.ready.by
    if by == "ssh" and not reachable:
        by = "agent"
    says = spec.backup.drill.says if spec.backup else None
    if by == "none" and not says:
        text = "nobody knows by what to see that it is there: its site says ready: {by: none}"
        hint = "say what its console does: backup: {drill: {says: 'login:'}}"
        raise Refused(text, subject=request.point.name, hint=hint)
    identity = GuestIdentity(
        *(request.uuid, drill_name(request.uuid), metadata.identity.instance_id, metadata.identity.host_key),
        tuple(nic.identity for nic in nics),
    )
    timeout, user = spec.ready.timeout, spec.cloud_init.user
    ready = AwaitGuest(identity, by, False, timeout, user, request.point.site, _log(request))
    return SeeDrill(ready, says or "", tuple(service for service in metadata.services if not service.stopped))


def _domain(request: DrillRequest, nics: tuple[_Nic, ...], files: DrillFiles, ledger: Ledger) -> DrillDomain:
    targets = [disk.target for disk in request.point.disks]
    return DrillDomain(
        uuid=request.uuid,
        name=drill_name(request.uuid),
        guest=request.point.ref.guest,
        point=request.point.id,
        serial_log=_log(request),
        disks={target: disk.overlay for target, disk in zip(targets, files.disks, strict=True)},
        nics={nic.identity.mac: (nic.bridge, nic.tap) for nic in nics if nic.bridge},
        forwards={nic.identity.mac: nic.identity.ssh_port for nic in nics if not nic.bridge},
        nvram=files.nvram,
        seed=files.seed,
        cpus=format_cpuset(ledger.pool) if ledger.pool != ledger.topology.online else "",
    )


def _log(request: DrillRequest) -> str:
    return console_log(request.logs, request.uuid)
