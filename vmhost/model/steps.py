"""The closed union of steps: every single act that vmhost may do to a host, as data without secrets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vmhost.model.awaitguest import AwaitGuest as AwaitGuest
from vmhost.model.backupsteps import BackupStep
from vmhost.model.disklimits import SetDiskLimits as SetDiskLimits
from vmhost.model.drills import DrillStep
from vmhost.model.memorysteps import PlugMemory as PlugMemory
from vmhost.model.memorysteps import UnplugMemory as UnplugMemory
from vmhost.model.netsteps import CreateBridge as CreateBridge
from vmhost.model.netsteps import DeleteBridge as DeleteBridge
from vmhost.model.netsteps import KeeperStep, LinkStep
from vmhost.model.netsteps import SetPortVlans as SetPortVlans
from vmhost.model.nightsteps import NightStep
from vmhost.model.portsteps import GuardPort as GuardPort
from vmhost.model.portsteps import IsolatePort as IsolatePort
from vmhost.model.portsteps import PortStep as PortStep
from vmhost.model.portsteps import Release as Release
from vmhost.model.portsteps import Reserve as Reserve
from vmhost.model.portsteps import SetBandwidth as SetBandwidth
from vmhost.model.portsteps import UnguardPort as UnguardPort
from vmhost.model.portsteps import Unreserve as Unreserve
from vmhost.model.snapsteps import SnapshotStep as SnapshotStep
from vmhost.model.tuning import Tuning


@dataclass(frozen=True, slots=True)
class EnsurePool:
    """Define, build, start and autostart a directory pool."""

    name: str
    path: str
    kind: Literal["ensure-pool"] = "ensure-pool"


@dataclass(frozen=True, slots=True)
class DeletePool:
    """Stop and undefine a directory pool that holds no volumes; its empty directory goes too."""

    name: str
    kind: Literal["delete-pool"] = "delete-pool"


@dataclass(frozen=True, slots=True)
class InstallHook:
    """Put our hook into libvirt's configuration, beside those of others."""

    kind: Literal["install-hook"] = "install-hook"


@dataclass(frozen=True, slots=True)
class RemoveHook:
    """Take our hook out of libvirt's configuration."""

    kind: Literal["remove-hook"] = "remove-hook"


@dataclass(frozen=True, slots=True)
class RestartDaemon:
    """Restart libvirt's daemon, so that it finds the hook; guests run on."""

    kind: Literal["restart-daemon"] = "restart-daemon"


@dataclass(frozen=True, slots=True)
class OpenAccess:
    """Make the host's access port into a VLAN of a bridge; ``address`` is the host's own there, ``ip/prefix``."""

    bridge: str
    vid: int
    address: str
    mtu: int
    site: str
    kind: Literal["open-access"] = "open-access"


@dataclass(frozen=True, slots=True)
class CloseAccess:
    """Take the host's access port into a VLAN away, with its namespace."""

    bridge: str
    vid: int
    address: str
    site: str
    kind: Literal["close-access"] = "close-access"


@dataclass(frozen=True, slots=True)
class CreateVolume:
    """Create a qcow2 volume of ``capacity`` bytes, empty or on a backing image (path and format both explicit)."""

    pool: str
    name: str
    capacity: int
    backing: str = ""
    backing_format: str = ""
    kind: Literal["create-volume"] = "create-volume"


@dataclass(frozen=True, slots=True)
class ResizeVolume:
    """Grow a volume of a guest that is shut off to ``capacity`` bytes."""

    pool: str
    name: str
    capacity: int
    kind: Literal["resize-volume"] = "resize-volume"


@dataclass(frozen=True, slots=True)
class ResizeDisk:
    """Grow the disk of a running guest to ``capacity`` bytes; the guest sees it at once."""

    uuid: str
    source: str
    capacity: int
    kind: Literal["resize-disk"] = "resize-disk"


@dataclass(frozen=True, slots=True)
class DeleteVolume:
    """Delete a volume and what it holds, for good."""

    pool: str
    name: str
    kind: Literal["delete-volume"] = "delete-volume"


@dataclass(frozen=True, slots=True)
class CreateSeed:
    """Create the NoCloud seed volume.

    The three documents are JSON text; where a secret belongs stands a token (``vmhost.render.seed``), which the engine
    fills at the last moment. ``extra_user_data`` is the user's own part, or empty.
    """

    pool: str
    name: str
    meta_data: str
    user_data: str
    network_config: str
    extra_user_data: str = ""
    kind: Literal["create-seed"] = "create-seed"


@dataclass(frozen=True, slots=True)
class ScrubSeed:
    """Overwrite a seed with one of the same instance-id that holds no secrets; the documents as for a new seed."""

    pool: str
    name: str
    meta_data: str
    user_data: str
    network_config: str
    extra_user_data: str = ""
    kind: Literal["scrub-seed"] = "scrub-seed"


@dataclass(frozen=True, slots=True)
class DefineDomain:
    """Define a domain, or redefine the one of the same UUID; a running guest sees it at its next boot."""

    uuid: str
    name: str
    xml: str
    kind: Literal["define-domain"] = "define-domain"


@dataclass(frozen=True, slots=True)
class UndefineDomain:
    """Undefine a domain with its NVRAM, managed save, checkpoint and snapshot metadata; its disks stay."""

    uuid: str
    name: str
    kind: Literal["undefine-domain"] = "undefine-domain"


@dataclass(frozen=True, slots=True)
class StartDomain:
    """Start a defined domain."""

    uuid: str
    name: str
    kind: Literal["start-domain"] = "start-domain"


@dataclass(frozen=True, slots=True)
class ShutDown:
    """Ask the guest to shut down (agent, then ACPI) and wait until it has; never powers it off."""

    uuid: str
    name: str
    timeout: float
    kind: Literal["shut-down"] = "shut-down"


@dataclass(frozen=True, slots=True)
class PowerOff:
    """Take the power away at once (QEMU gets the time to flush its caches)."""

    uuid: str
    name: str
    kind: Literal["power-off"] = "power-off"


@dataclass(frozen=True, slots=True)
class DiscardManagedSave:
    """Remove the saved memory of a guest, as a power cut would."""

    uuid: str
    name: str
    kind: Literal["discard-managed-save"] = "discard-managed-save"


@dataclass(frozen=True, slots=True)
class SetAutostart:
    """Set libvirt's autostart of a domain."""

    uuid: str
    name: str
    on: bool
    kind: Literal["set-autostart"] = "set-autostart"


@dataclass(frozen=True, slots=True)
class SetMetadata:
    """Replace our metadata element, in the definition and in the running domain; ``xml`` is the element's text."""

    uuid: str
    name: str
    xml: str
    kind: Literal["set-metadata"] = "set-metadata"


@dataclass(frozen=True, slots=True)
class PlugNic:
    """Plug a NIC into a running guest, until its next boot; ``xml`` is its ``<interface>``, whose link is down."""

    uuid: str
    name: str
    mac: str
    xml: str
    kind: Literal["plug-nic"] = "plug-nic"


@dataclass(frozen=True, slots=True)
class UnplugNic:
    """Take a NIC out of a running guest, whose system has to let go of it."""

    uuid: str
    name: str
    mac: str
    kind: Literal["unplug-nic"] = "unplug-nic"


@dataclass(frozen=True, slots=True)
class SetNicLink:
    """Set the link of a running guest's NIC up or down, as a cable that is plugged in or not."""

    uuid: str
    name: str
    mac: str
    up: bool
    kind: Literal["set-nic-link"] = "set-nic-link"


@dataclass(frozen=True, slots=True)
class SetTuning:
    """Hold a running guest so, at once: its pins, quotas, shares, limits and cells; its definition is another step's.

    vCPUs that it does not have now are left out; what cannot change while it runs stays as it is.
    """

    uuid: str
    name: str
    tuning: Tuning
    kind: Literal["set-tuning"] = "set-tuning"


@dataclass(frozen=True, slots=True)
class SetVcpus:
    """Give a running guest that many vCPUs, at most as many as it was started with room for."""

    uuid: str
    name: str
    count: int
    kind: Literal["set-vcpus"] = "set-vcpus"


@dataclass(frozen=True, slots=True)
class SetMemory:
    """Let the balloon of a running guest leave it ``size`` bytes, at most as much as it has been given."""

    uuid: str
    name: str
    size: int
    kind: Literal["set-memory"] = "set-memory"


@dataclass(frozen=True, slots=True)
class CheckTuning:
    """Read from the kernel how a running guest is held; a difference is a failure."""

    uuid: str
    name: str
    tuning: Tuning
    kind: Literal["check-tuning"] = "check-tuning"


@dataclass(frozen=True, slots=True)
class ForgetConsole:
    """Delete the log of a guest's serial console."""

    path: str
    kind: Literal["forget-console"] = "forget-console"


PlainStep = (
    EnsurePool
    | DeletePool
    | LinkStep
    | PortStep
    | InstallHook
    | RemoveHook
    | RestartDaemon
    | OpenAccess
    | CloseAccess
    | CreateVolume
    | ResizeVolume
    | ResizeDisk
    | DeleteVolume
    | CreateSeed
    | ScrubSeed
    | DefineDomain
    | UndefineDomain
    | StartDomain
    | ShutDown
    | PowerOff
    | DiscardManagedSave
    | SetAutostart
    | SetMetadata
    | PlugNic
    | UnplugNic
    | SetNicLink
    | SetTuning
    | SetVcpus
    | SetMemory
    | CheckTuning
    | SetDiskLimits
    | PlugMemory
    | UnplugMemory
    | ForgetConsole
)
"""One call of a port, or a few, each with no rules of a room of its own."""

Step = PlainStep | AwaitGuest | KeeperStep | SnapshotStep | BackupStep | DrillStep | NightStep
