"""A site: as written (``SiteInput``), and complete, with every guest resolved (``Site``)."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from vmhost.model.spec.base import ByteRate, Count, HostMemory, LinkName, Model, Name
from vmhost.model.spec.guest import GuestEntry, GuestInput, GuestSpec
from vmhost.model.spec.network import BridgeEntry, BridgeSpec, NetworkSpec
from vmhost.model.spec.resources import CpuSet
from vmhost.model.spec.service import ServiceSpec

API_VERSION: Final = "vmhost/v1"
Ratio = Annotated[float, Field(ge=0.1, le=100)]


Percent = Annotated[Count, Field(ge=1, le=100)]


class ThresholdSpec(Model):
    """From how many percent on a resource of the host is told to run short."""

    cpu: Percent = Field(default=70, description="pCPUs that are requested or somebody's own.")
    memory: Percent = Field(default=85, description="Memory that is promised.")
    storage: Percent = Field(default=80, description="Space of storage pools that is taken.")
    network: Percent = Field(default=90, description="What an uplink carries of its speed, where it is measured.")


class HostSpec(Model):
    """Host-wide wishes."""

    pool: Name = Field(default="vmhost", description="Storage pool of disks that name none; made if it is missing.")
    reserve_memory: HostMemory | None = Field(default=None, description="Memory that guests may not take.")
    reserve_cpus: CpuSet | None = Field(default=None, description="pCPUs that guests may not have.")
    overcommit_cpus: Ratio | None = Field(
        default=None, description="vCPUs for each pCPU that guests share; not limited if absent."
    )
    overcommit_memory: Ratio | None = Field(
        default=None, description="Memory promised to guests for each byte that there is; 1 if absent."
    )
    placement: Literal["dense", "spread"] | None = Field(
        default=None, description="Whether guests fill one cache and cell after another, or lie apart; dense if absent."
    )
    backup_rate: ByteRate | None = Field(
        default=None, description="Bytes per second that backups copy, of all guests together: 200M."
    )
    backup_compression: Literal["none", "zstd"] | None = Field(
        default=None, description="How backups pack what they copy of disks; none if absent."
    )
    thresholds: ThresholdSpec | None = Field(default=None, description="When a resource is told to run short.")


class SiteInput(Model):
    """A site: the guests that one file owns on a host, and the bridges and networks that they use."""

    apiVersion: Literal["vmhost/v1"] = Field(description="Version of this format.")  # noqa: N815 - as Kubernetes spells it
    name: Name = Field(description="Name of the site; what it owns carries it.")
    host: HostSpec = Field(default=HostSpec(), description="What holds for the whole host.")
    bridges: dict[LinkName, BridgeEntry] = Field(default={}, description="Bridges that vmhost makes, by name.")
    networks: dict[Name, NetworkSpec] = Field(default={}, description="Networks, by name.")
    defaults: GuestInput = Field(
        default=GuestInput(), description="What guests get unless their profile or they say otherwise."
    )
    profiles: dict[Name, GuestEntry] = Field(default={}, description="Named flavours that guests inherit.")
    guests: dict[Name, GuestEntry] = Field(default={}, description="Guests, by name.")
    services: dict[Name, ServiceSpec] = Field(default={}, description="Services inside guests, by name.")


class Site(Model):
    """A site with nothing left open, checked in itself. ``path`` is the file it came from, or empty."""

    name: Name
    path: str = ""
    host: HostSpec = HostSpec()
    bridges: dict[LinkName, BridgeSpec] = {}
    networks: dict[Name, NetworkSpec] = {}
    guests: tuple[GuestSpec, ...] = ()
    services: dict[Name, ServiceSpec] = {}

    def guest(self, name: str) -> GuestSpec | None:
        """Return the guest of that name, or None."""
        return next((guest for guest in self.guests if guest.name == name), None)
