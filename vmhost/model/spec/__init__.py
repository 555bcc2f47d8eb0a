"""What a person writes in a site file, and the complete guests that follow from it."""

from vmhost.model.spec.base import CommandRef, CredentialRef, EnvRef, FileRef, SecretRef
from vmhost.model.spec.cloudinit import CloudInitSpec, FileSpec, UserDataSpec, UserSpec
from vmhost.model.spec.guest import (
    BandwidthSpec,
    DiskSpec,
    GuestInput,
    GuestSpec,
    NicSpec,
    ReadySpec,
)
from vmhost.model.spec.network import BridgeSpec, JumpSpec, NetworkSpec, RouteSpec
from vmhost.model.spec.resources import CpuSpec, MemoryInput, MemorySpec
from vmhost.model.spec.site import API_VERSION, HostSpec, Site, SiteInput

__all__ = [
    "API_VERSION",
    "BandwidthSpec",
    "BridgeSpec",
    "CloudInitSpec",
    "CommandRef",
    "CpuSpec",
    "CredentialRef",
    "DiskSpec",
    "EnvRef",
    "FileRef",
    "FileSpec",
    "GuestInput",
    "GuestSpec",
    "HostSpec",
    "JumpSpec",
    "MemoryInput",
    "MemorySpec",
    "NetworkSpec",
    "NicSpec",
    "ReadySpec",
    "RouteSpec",
    "SecretRef",
    "Site",
    "SiteInput",
    "UserDataSpec",
    "UserSpec",
]
