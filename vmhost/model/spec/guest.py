"""A guest: as a person writes it (``GuestInput``, everything optional) and complete (``GuestSpec``)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from vmhost.model import units
from vmhost.model.spec.base import (
    ByteRate,
    Count,
    DiskSize,
    Flag,
    Identifier,
    Line,
    Mac,
    Model,
    Name,
    Rate,
    Seconds,
    empty_if_absent,
)
from vmhost.model.spec.cloudinit import CloudInitSpec
from vmhost.model.spec.heartbeat import HeartbeatSpec
from vmhost.model.spec.protection import BackupSpec
from vmhost.model.spec.resources import Cpus, CpuSpec, Memory, MemoryWritten
from vmhost.model.vlans import format_vids, parse_vids

NO_ADDRESS = ("auto", "dhcp", "none")
"""What may stand in place of an address."""


def _address(text: str) -> str:
    if text in NO_ADDRESS:
        return text
    try:
        return units.parse_ip(text)
    except ValueError as error:
        raise ValueError(f"{error}, or one of {', '.join(NO_ADDRESS)}") from None


def _vids(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _normal_vids(text: str) -> str:
    vids = parse_vids(text)
    if not vids:
        raise ValueError("no VLAN is named: write for example 100,200-299")
    return format_vids(vids)


Vids = Annotated[str, AfterValidator(_normal_vids), BeforeValidator(_vids, json_schema_input_type=int | str)]
Address = Annotated[str, AfterValidator(_address)]
Firmware = Literal["bios", "uefi"]
Iops = Annotated[Count, Field(ge=1, le=1_000_000_000)]


class DiskLimitsSpec(Model):
    """What a guest may ask of a disk in a second: reads and writes together, or each of them."""

    rate: ByteRate | None = Field(default=None, description="Bytes per second, reads and writes together: 50M.")
    read_rate: ByteRate | None = Field(default=None, description="Bytes per second that are read: 50M.")
    write_rate: ByteRate | None = Field(default=None, description="Bytes per second that are written: 50M.")
    iops: Iops | None = Field(default=None, description="Operations per second, reads and writes together.")
    read_iops: Iops | None = Field(default=None, description="Reads per second.")
    write_iops: Iops | None = Field(default=None, description="Writes per second.")

    @model_validator(mode="after")
    def _possible(self) -> DiskLimitsSpec:
        for whole, *parts in (("rate", "read_rate", "write_rate"), ("iops", "read_iops", "write_iops")):
            given = [part for part in parts if getattr(self, part) is not None]
            if getattr(self, whole) is not None and given:
                raise ValueError(f"{whole} is of reads and writes together: leave it or {given[0]} out")
        return self


class DiskSpec(Model):
    """A disk. The first one is the root disk and lies on the guest's image; further ones begin empty."""

    id: Identifier | None = Field(default=None, description="Stable name: root for the first, then data1, data2, ...")
    size: DiskSize = Field(description="Size; it can grow, never shrink.")
    pool: Name | None = Field(default=None, description="Storage pool; the host's pool if absent.")
    limits: DiskLimitsSpec | None = Field(default=None, description="What it may be asked for in a second.")


class BandwidthSpec(Model):
    """What may go to a NIC and come from it; ``bandwidth: 10Mbit`` is both."""

    inbound: Rate | None = Field(default=None, description="To the guest, per second: 10Mbit.")
    outbound: Rate | None = Field(default=None, description="From the guest, per second: 10Mbit.")


def _both_ways(value: Any) -> Any:
    return {"inbound": value, "outbound": value} if isinstance(value, (str, int, float)) else value


Bandwidth = Annotated[BandwidthSpec, BeforeValidator(_both_ways, json_schema_input_type=str | BandwidthSpec)]
Spoofing = Literal["allowed", "refused"]


class NicSpec(Model):
    """A NIC on a network.

    Its port is in the network's VLAN, untagged (access); ``tagged`` adds VLANs (hybrid), or is all (trunk).
    """

    network: Name = Field(description="Name of the network.")
    id: Identifier | None = Field(default=None, description="Stable name; the network's name if absent.")
    address: Address = Field(
        default="auto",
        description="An address of the subnet, auto, dhcp or none; without it auto where there is a subnet, else dhcp.",
    )
    mac: Mac | None = Field(default=None, description="Hardware address; drawn if absent.")
    tagged: Vids | None = Field(default=None, description="VLANs that it sees tagged: 100,200-299.")
    isolated: Flag | None = Field(
        default=None, description="Exchange nothing with other isolated NICs; as the network."
    )
    spoofing: Spoofing | None = Field(
        default=None, description="refused: drop what it says in the name of others; as the network if absent."
    )
    bandwidth: Bandwidth | None = Field(default=None, description="Limits; those of the network if absent.")


class ReadySpec(Model):
    """When the guest counts as ready: it answers, and cloud-init has its verdict."""

    by: Literal["ssh", "agent", "none"] = Field(
        default="ssh", description="What is asked; without it ssh where the address is known, else the guest agent."
    )
    cloud_init: Flag = Field(default=True, description="Wait for cloud-init's verdict.")
    timeout: Seconds = Field(default=600.0, description="How long it may take.")


Labels = dict[Identifier, Line]


class GuestInput(Model):
    """A guest, a profile or the defaults as written: what is absent comes from the profile, then from the defaults."""

    profile: Name | None = Field(default=None, description="The profile to inherit from.")
    count: Annotated[Count, Field(ge=1, le=999)] | None = Field(
        default=None, description="That many guests: NAME-01, NAME-02, ..."
    )
    image: Name | None = Field(default=None, description="Image of the root disk, as in vmhost image list.")
    cpus: Cpus | None = Field(default=None, description="vCPUs.")
    memory: MemoryWritten | None = Field(default=None, description="Memory.")
    firmware: Firmware | None = Field(default=None, description="How it boots; bios if absent.")
    disks: Annotated[tuple[DiskSpec, ...], Field(min_length=1, max_length=24)] | None = Field(
        default=None, description="Disks; the first is the root disk."
    )
    nics: Annotated[tuple[NicSpec, ...], Field(max_length=16)] | None = Field(default=None, description="NICs.")
    cloud_init: CloudInitSpec | None = Field(default=None, description="What is set up at the first boot.")
    state: Literal["running", "stopped"] | None = Field(default=None, description="running if absent.")
    autostart: Flag | None = Field(default=None, description="Start with the host.")
    protect: Flag | None = Field(default=None, description="Refuse to delete, replace or power off.")
    labels: Labels | None = Field(default=None, description="Words of one's own.")
    ready: ReadySpec | None = Field(default=None, description="When it counts as ready.")
    backup: BackupSpec | None = Field(default=None, description="Its backups.")
    heartbeat: HeartbeatSpec | None = Field(default=None, description="Whether it answers, and what then.")


GuestEntry = Annotated[GuestInput, BeforeValidator(empty_if_absent, json_schema_input_type=GuestInput | None)]


class GuestSpec(Model):
    """A guest with nothing left open: every default, id and maximum is written out. Sizes are bytes."""

    name: Name
    image: Name
    cpus: CpuSpec
    memory: Memory
    firmware: Firmware = "bios"
    disks: Annotated[tuple[DiskSpec, ...], Field(min_length=1, max_length=24)]
    nics: Annotated[tuple[NicSpec, ...], Field(max_length=16)] = ()
    cloud_init: CloudInitSpec = CloudInitSpec()
    state: Literal["running", "stopped"] = "running"
    autostart: bool = False
    protect: bool = False
    labels: Labels = {}
    ready: ReadySpec = ReadySpec()
    backup: BackupSpec | None = None
    heartbeat: HeartbeatSpec | None = None

    @model_validator(mode="after")
    def _shown(self) -> GuestSpec:
        if self.cpus.topology and ((self.memory.max or 0) > self.memory.size or self.memory.numa == "preferred"):
            raise ValueError("cpus.topology host needs all memory from the start, and strictly of its cells")
        return self

    @property
    def root(self) -> DiskSpec:
        """The disk that lies on the image."""
        return self.disks[0]
