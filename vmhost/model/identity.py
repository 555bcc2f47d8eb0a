"""Who a guest is: decided while planning, before the guest exists (docs/decisions: identity)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vmhost.model.reach import AccessPort, Via, parse_jump
from vmhost.model.services import DeployedService
from vmhost.model.vlans import PortVlans, parse_vids, port_vlans

NAMESPACE: Final = "https://vmhost.dev/xmlns/guest"
METADATA_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class NicIdentity:
    """One NIC of a guest.

    ``id`` is stable within the guest (libvirt alias ``ua-nic-ID``); ``tap`` is the link on the host, empty for the user
    network; ``address`` is ``ip/prefix``, empty for DHCP and for none; ``ssh_port`` is the forwarded port on the host's
    loopback for the user network, else 0. ``pvid`` and ``tagged`` are the VLANs of its port on ``bridge``, which is
    empty without VLANs: the one that it is in untagged (0: none), and those that it sees tagged (``100,200-299``).
    ``reach`` is ``agent`` where the host does not reach the NIC by the network, ``port`` and ``jump`` where it does in
    another way than by its own routing; ``via`` says how: the host's own address with prefix, or the jump host.
    ``isolated``: its port exchanges nothing with other isolated ports; ``spoofing`` is ``refused`` where what it says
    in the name of others is dropped. ``inbound`` and ``outbound`` limit what goes to the guest and comes from it, in
    bits a second, 0: no limit.
    """

    id: str
    network: str
    mac: str
    tap: str = ""
    address: str = ""
    ssh_port: int = 0
    pvid: int = 0
    tagged: str = ""
    bridge: str = ""
    reach: str = ""
    isolated: bool = False
    spoofing: str = ""
    inbound: int = 0
    outbound: int = 0
    via: str = ""

    @property
    def way(self) -> Via | None:
        """How the host gets to it where its own routing does not lead there; None: by that, or not at all.

        :raises ValueError: what is noted is no such way.
        """
        if self.reach == "port":
            return AccessPort(self.bridge, self.pvid, self.via)
        return parse_jump(self.via) if self.reach == "jump" else None

    @property
    def vlans(self) -> PortVlans | None:
        """The VLANs of its port; None: it is on a network without VLANs.

        :raises ValueError: they are not VLAN ids.
        """
        return port_vlans(self.pvid, parse_vids(self.tagged)) if self.pvid or self.tagged else None


@dataclass(frozen=True, slots=True)
class GuestIdentity:
    """What makes a guest this guest and no other.

    ``host_key`` is the public OpenSSH line of the ed25519 host key that the seed gives to the guest; the private half
    is in the first seed only. ``instance_id`` is cloud-init's: a new one makes the guest configure itself anew.
    """

    uuid: str
    name: str
    instance_id: str
    host_key: str
    nics: tuple[NicIdentity, ...] = ()


@dataclass(frozen=True, slots=True)
class GuestMetadata:
    """Our element in the domain's ``<metadata>``: whose the guest is and what was last applied.

    ``spec`` is the last applied normalised spec as JSON, without secrets. ``version`` above ``METADATA_VERSION``
    means that a newer vmhost wrote it: read-only for us. ``volumes`` are ``pool/name`` of the disks and the seed that
    are the guest's. ``pending`` is True until the guest's first boot was seen to end well and its seed was scrubbed.
    ``applied`` is the time of the last apply (ISO 8601, UTC), ``user`` who did it, ``command`` the command that
    changed the guest past its site, if any. ``services`` are those that were deployed into it.
    """

    version: int
    site: str
    owner: str
    applied: str
    identity: GuestIdentity
    spec: str
    volumes: tuple[str, ...] = ()
    user: str = ""
    protect: bool = False
    pending: bool = False
    command: str = ""
    services: tuple[DeployedService, ...] = ()

    @property
    def readable(self) -> bool:
        """Whether this vmhost may change the guest."""
        return self.version <= METADATA_VERSION


def tap_name(uuid: str, index: int) -> str:
    """Return the tap of a guest's NIC: ``vh`` + 8 hex digits of the UUID + ``-`` + index, at most 15 bytes for 0 to
    999.
    """
    return f"vh{uuid.replace('-', '')[:8]}-{index}"


def console_log(directory: str, uuid: str) -> str:
    """Return where a guest's serial console is logged."""
    return f"{directory}/{uuid}.console.log"


def volume_name(uuid: str, disk: str, suffix: str = "qcow2") -> str:
    """Return the volume of a guest's disk: ``UUID-DISK.qcow2``, so an existing one is the guest's own or nobody's."""
    return f"{uuid}-{disk}.{suffix}"
