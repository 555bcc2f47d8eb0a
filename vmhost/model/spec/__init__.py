"""What a person writes in a site file, and the complete guests that follow from it."""

from vmhost.model.spec.base import CommandRef, CredentialRef, EnvRef, FileRef, SecretRef
from vmhost.model.spec.cloudinit import CloudInitSpec, FileSpec, UserDataSpec, UserSpec
from vmhost.model.spec.guest import (
    BandwidthSpec,
    DiskLimitsSpec,
    DiskSpec,
    GuestInput,
    GuestSpec,
    NicSpec,
    ReadySpec,
)
from vmhost.model.spec.heartbeat import HeartbeatSpec
from vmhost.model.spec.network import BridgeSpec, JumpSpec, NetworkSpec, RouteSpec
from vmhost.model.spec.protection import BackupSpec, DrillSpec, KeepSpec, ScheduleSpec
from vmhost.model.spec.resources import CpuSpec, MemoryInput, MemorySpec
from vmhost.model.spec.service import (
    DirectorySpec,
    HooksSpec,
    HttpSpec,
    ProbeSpec,
    RestartSpec,
    ServiceFileSpec,
    ServiceSpec,
    ServiceUserSpec,
    TcpSpec,
    UnitSpec,
)
from vmhost.model.spec.site import API_VERSION, HostSpec, Site, SiteInput, ThresholdSpec

__all__ = [
    "API_VERSION",
    "BackupSpec",
    "BandwidthSpec",
    "BridgeSpec",
    "CloudInitSpec",
    "CommandRef",
    "CpuSpec",
    "CredentialRef",
    "DirectorySpec",
    "DiskLimitsSpec",
    "DiskSpec",
    "DrillSpec",
    "EnvRef",
    "FileRef",
    "FileSpec",
    "GuestInput",
    "GuestSpec",
    "HeartbeatSpec",
    "HooksSpec",
    "HostSpec",
    "HttpSpec",
    "JumpSpec",
    "KeepSpec",
    "MemoryInput",
    "MemorySpec",
    "NetworkSpec",
    "NicSpec",
    "ProbeSpec",
    "ReadySpec",
    "RestartSpec",
    "RouteSpec",
    "ScheduleSpec",
    "SecretRef",
    "ServiceFileSpec",
    "ServiceSpec",
    "ServiceUserSpec",
    "Site",
    "SiteInput",
    "TcpSpec",
    "ThresholdSpec",
    "UnitSpec",
    "UserDataSpec",
    "UserSpec",
]
