"""Guests whose domain XML is kept in ``golden/``: every field of a spec that shows in it has at least one.

Write the files anew after a wanted change of the templates, and read the difference before committing it::

    python -m tests.render.cases
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vmhost.model.identity import METADATA_VERSION, GuestIdentity, GuestMetadata, NicIdentity, tap_name, volume_name
from vmhost.model.observed import ObservedHost
from vmhost.model.shape import GuestCell, Shape
from vmhost.model.spec import GuestSpec, NetworkSpec, NicSpec
from vmhost.model.tuning import FREE, Tuning
from vmhost.plan.disklimits import limits_of
from vmhost.plan.guards import guarded
from vmhost.render.domain import DiskPath, DomainContext, render_domain
from vmhost.render.templates import Templates

GOLDEN = Path(__file__).parent / "golden"
TEMPLATES = Path(__file__).parents[2] / "domain_templates"

UUID = "3f2a91c4-6c1d-4a8e-9b57-0d1e2f3a4b5c"
HOST_KEY = "ssh-ed25519 AAAA web-01"
HOST = ObservedHost(
    uri="qemu:///system",
    driver="QEMU",
    hostname="host",
    libvirt_version=9_000_000,
    hypervisor_version=7_002_000,
    architecture="x86_64",
    cpus=8,
    memory=64 << 30,
    kvm=False,
    local=True,
    privileged=True,
)
NETWORKS = {
    "prod": NetworkSpec(bridge="br0", subnet="10.20.0.0/24"),
    "store": NetworkSpec(bridge="br1", mtu=9000),
    "wide": NetworkSpec(bridge="br0", mtu=1400),
    "nat": NetworkSpec(type="user"),
    "nat-small": NetworkSpec(type="user", mtu=1400),
}
MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True)
class Case:
    """A guest, the host that it shall run on, and how its disks can be opened."""

    spec: GuestSpec
    host: ObservedHost = HOST
    networks: Mapping[str, NetworkSpec] = field(default_factory=lambda: NETWORKS)
    direct: bool = False
    disks: str = "/var/lib/vmhost/disks"
    logs: str = "/var/log/vmhost/console"
    nvram: str = ""
    metadata: GuestMetadata | None = None
    tuning: Tuning = FREE

    def identity(self) -> GuestIdentity:
        """Return who the guest is."""
        nics = tuple(self._nic(index, nic) for index, nic in enumerate(self.spec.nics))
        return GuestIdentity(UUID, self.spec.name, UUID, HOST_KEY, nics)

    def _nic(self, index: int, nic: NicSpec) -> NicIdentity:
        mac = nic.mac or f"52:54:00:aa:bb:{index:02x}"
        if self.networks[nic.network].type == "user":
            port = 0 if nic.address == "none" else 40022 + index
            return NicIdentity(nic.id or nic.network, nic.network, mac, ssh_port=port)
        address = "" if nic.address in ("auto", "dhcp", "none") else f"{nic.address}/24"
        made = NicIdentity(nic.id or nic.network, nic.network, mac, tap_name(UUID, index), address)
        return guarded(made, nic, self.networks[nic.network])

    def context(self) -> DomainContext:
        """Return what the guest's domain needs beside its spec."""
        ids = [str(disk.id) for disk in self.spec.disks]
        limits = {str(disk.id): limits_of(disk) for disk in self.spec.disks}
        paths = (
            DiskPath(disk, f"{self.disks}/{volume_name(UUID, disk)}", direct=self.direct, limits=limits[disk])
            for disk in ids
        )
        return DomainContext(
            host=self.host,
            networks=self.networks,
            disks=tuple(paths),
            seed=f"{self.disks}/{volume_name(UUID, 'seed', 'iso')}",
            serial_log=f"{self.logs}/{UUID}.log",
            metadata=self.metadata or self._metadata(ids),
            nvram=self.nvram,
            tuning=self.tuning,
        )

    def _metadata(self, disks: list[str]) -> GuestMetadata:
        return GuestMetadata(
            version=METADATA_VERSION,
            site="shop",
            owner="root",
            applied="2026-11-20T16:00:00Z",
            identity=self.identity(),
            spec=self.spec.model_dump_json(exclude_none=True),
            volumes=tuple(f"vmhost/{volume_name(UUID, disk)}" for disk in disks),
            user="operator",
            protect=self.spec.protect,
            pending=True,
        )

    def render(self, templates: Templates | None = None) -> str:
        """Return the guest's domain XML."""
        return render_domain(self.spec, self.identity(), self.context(), templates or packaged())


def packaged(*, sandboxed: bool = False, **overrides: str) -> Templates:
    """Return the templates as they ship; ``overrides`` replace texts by name."""
    texts = {str(path.relative_to(TEMPLATES)): path.read_text() for path in sorted(TEMPLATES.rglob("*.j2"))}
    return Templates({**texts, **overrides}, sandboxed=sandboxed)


def guest(**values: Any) -> GuestSpec:
    """Return a small guest with the given fields."""
    plain = {
        "name": "web-01",
        "image": "debian-12",
        "cpus": {"count": 1},
        "memory": {"size": GIB},
        "disks": [{"id": "root", "size": 10 * GIB}],
    }
    return GuestSpec.model_validate({**plain, **values})


HOSTILE = """<x/> & "quoted" 'too' {{ 7 * 7 }} {% raw %} $(id) `id` ]]> &lt; \u00e9\u4e2d\U0001f600"""

CASES: dict[str, Case] = {
    "smallest": Case(guest()),
    "slow-disks": Case(
        guest(
            disks=[
                {"id": "root", "size": 10 * GIB, "limits": {"rate": "50M", "iops": 500}},
                {"id": "data1", "size": GIB, "limits": {"read_rate": "100M", "write_rate": "20M", "write_iops": 200}},
            ]
        )
    ),
    "uefi": Case(guest(name="uefi-01", firmware="uefi", image="debian-13")),
    "uefi-nvram": Case(guest(firmware="uefi"), nvram=f"/var/lib/vmhost/disks/{UUID}-nvram.fd"),
    "kvm": Case(guest(cpus={"count": 2}, memory={"size": 2 * GIB}), host=replace(HOST, kvm=True)),
    "emulator": Case(guest(), host=replace(HOST, emulator="/usr/libexec/qemu-kvm", kvm=True)),
    "growing": Case(guest(cpus={"count": 2, "max": 4}, memory={"size": 2 * GIB, "max": 8 * GIB})),
    "growing-by-one": Case(guest(cpus={"count": 1, "max": 2}, memory={"size": 512 * MIB, "max": GIB}, firmware="uefi")),
    "max-is-size": Case(guest(cpus={"count": 2, "max": 2}, memory={"size": GIB, "max": GIB})),
    "disks": Case(
        guest(
            disks=[
                {"id": "root", "size": 10 * GIB},
                {"id": "data1", "size": 20 * GIB, "pool": "fast"},
                {"id": "a-name-of-thirty-two-characters0", "size": MIB},
            ]
        )
    ),
    "direct": Case(guest(), direct=True),
    "nics": Case(
        guest(
            nics=[
                {"network": "prod", "id": "prod", "address": "10.20.0.11"},
                {"network": "store", "id": "store", "address": "none", "mac": "52:54:00:12:34:56"},
                {"network": "prod", "id": "second", "address": "dhcp"},
            ]
        )
    ),
    "limits": Case(
        guest(
            nics=[
                {"network": "prod", "id": "prod", "bandwidth": "10Mbit"},
                {"network": "prod", "id": "up", "bandwidth": {"outbound": "64kbit"}, "isolated": True},
                {"network": "prod", "id": "down", "bandwidth": {"inbound": "1Gbit"}, "spoofing": "refused"},
            ]
        )
    ),
    "user-network": Case(guest(nics=[{"network": "nat", "id": "nat", "address": "dhcp"}])),
    "mixed-networks": Case(
        guest(
            nics=[
                {"network": "nat", "id": "nat", "address": "dhcp"},
                {"network": "prod", "id": "prod"},
                {"network": "nat-small", "id": "small", "address": "none"},
            ]
        )
    ),
    "pinned": Case(
        guest(cpus={"count": 2, "policy": "dedicated"}),
        tuning=Tuning(pins=((0, "4"), (1, "6")), emulator="0-1", shares=2048, limit=150_000, vcpu_limit=50_000),
    ),
    "bound": Case(
        guest(memory={"size": GIB, "max": 2 * GIB}),
        tuning=Tuning(
            emulator_limit=20_000,
            hard_limit=3 * GIB,
            swap_limit=4 * GIB,
            page=2 * MIB,
            locked=True,
            cells="0",
            cell_mode="strict",
        ),
    ),
    "iothreads": Case(
        guest(cpus={"count": 2, "policy": "dedicated"}, disks=[{"id": name, "size": GIB} for name in "abc"]),
        tuning=Tuning(pins=((0, "4"), (1, "6")), emulator="7", iothreads=2, io=((1, "7"), (2, "7"))),
    ),
    "mirrored": Case(
        guest(cpus={"count": 4, "policy": "dedicated", "topology": "host"}),
        tuning=Tuning(
            pins=tuple((vcpu, str(vcpu + 2)) for vcpu in range(4)),
            cells="0-1",
            cell_mode="strict",
            shape=Shape(
                sockets=2,
                threads=2,
                cells=(GuestCell("0-1", GIB // 2, 0, (10, 21)), GuestCell("2-3", GIB // 2, 1, (21, 10))),
            ),
        ),
    ),
    "hostile": Case(
        guest(name="a.b_c-9", labels={"note": HOSTILE, "other": "]]><!-- -->"}, protect=True),
        disks="/srv/a <b> & 'c' \"d\" {{ e }}",
        logs="/var/log/$(id)/<&>",
    ),
}


def main() -> None:
    """Write the golden files."""
    GOLDEN.mkdir(exist_ok=True)
    for old in GOLDEN.glob("*.xml"):
        if old.stem not in CASES:
            old.unlink()
    for name, case in CASES.items():
        (GOLDEN / f"{name}.xml").write_text(case.render())


if __name__ == "__main__":
    main()
