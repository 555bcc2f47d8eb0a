"""What a person fills in, in a form or as flags: a new guest, and other vCPUs and memory for one that exists."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from vmhost.engine.observe import observe
from vmhost.model.errors import NotFound, SpecError
from vmhost.model.units import check_name, parse_size, shown
from vmhost.ops.build import user_name
from vmhost.ops.flavours import NOTHING, Flavours, Size, read_flavours
from vmhost.ops.hostfile import host_spec
from vmhost.ops.proposals import Proposal, propose_site

if TYPE_CHECKING:
    from vmhost.model.observed import Observed, ObservedLink
    from vmhost.model.permit import Permit
    from vmhost.model.plan import Plan
    from vmhost.model.spec import Site
    from vmhost.ports import Ports

USER_NETWORK: Final = "user"
NO_NETWORK: Final = "none"
_NETWORK: Final = "lan"
_FIELDS: Final = {
    "name": "name",
    "image": "image",
    "cpus": "cpus",
    "memory": "memory",
    "disks": "disk",
    "nics": "address",
    "networks": "network",
    "profiles": "profile",
}


@dataclass(frozen=True, slots=True)
class NewGuest:
    """A new guest as a person writes it: every field is text, as in a site file.

    What is None is as the profile says, then 1 vCPU, 1G, 10G and ``user``. ``network`` is a network of the file, a
    bridge of this host, ``user`` (QEMU's own network) or ``none``; ``address`` one of its subnet, ``auto``, ``dhcp`` or
    ``none``; empty: ``auto`` where the subnet is known. ``profile`` is one of the file or small, medium, large.
    ``site`` is that file; empty: the host's own (:func:`vmhost.ops.flavours.read_flavours`).
    """

    name: str
    image: str | None = None
    cpus: str | None = None
    memory: str | None = None
    disk: str | None = None
    network: str | None = None
    address: str = ""
    profile: str = ""
    site: str = ""


def site_text(wish: NewGuest, bridges: Mapping[str, str], flavours: Flavours = NOTHING) -> str:
    """Return the site file of a new guest: a site of the guest's own name with nothing else in it.

    :param bridges: the host's bridges, each with its own address and prefix on it, or empty.
    :raises NotFound: there is no such profile, or no VLAN is allocated for the network.
    """
    said = flavours.said(wish.profile) if wish.profile or wish.site else {}
    guest = _guest(wish, flavours, said)
    networks: dict[str, Any] = {}
    if wish.network == NO_NETWORK:
        guest["nics"] = []
    elif wish.network is not None or "nics" not in said:
        name = USER_NETWORK if wish.network is None else wish.network
        networks = _network(name, bridges, flavours)
        address = wish.address.strip()
        guest["nics"] = [{"network": next(iter(networks)), **({"address": address} if address else {})}]
    else:
        networks = {name: flavours.network(name) for name in _named(said["nics"]) if name in flavours.networks}
    site: dict[str, Any] = {"apiVersion": "vmhost/v1", "name": wish.name.strip(), "networks": networks}
    if said:
        site |= {"defaults": flavours.defaults, "profiles": flavours.profiles}
    return json.dumps({**site, "guests": {wish.name.strip(): guest}}, indent=2) + "\n"


def _guest(wish: NewGuest, flavours: Flavours, said: Mapping[str, Any]) -> dict[str, Any]:
    """Return a guest's keys without its NICs: what the person wrote, then the profile, then what is left to us."""
    size = flavours.size(wish.profile) if wish.profile else Size()
    guest: dict[str, Any] = {} if wish.image is None else {"image": wish.image.strip()}
    if wish.profile in flavours.profiles:
        guest["profile"] = wish.profile
        size = Size()
    cpus = _first(wish.cpus, size.cpus, None if "cpus" in said else "1")
    memory = _first(wish.memory, size.memory, None if "memory" in said else "1G")
    disk = _first(wish.disk, None if "disks" in said else "10G")
    if cpus is not None:
        guest["cpus"] = _number(cpus)
    if memory is not None:
        guest["memory"] = memory
    if disk is not None:
        guest["disks"] = [{"size": disk}]
    return guest


def _first(said: str | None, *others: str | None) -> str | None:
    """Return what the person wrote, were it nothing, or the first of the others that is anything."""
    return said.strip() if said is not None else next((other for other in others if other), None)


def _network(name: str, bridges: Mapping[str, str], flavours: Flavours) -> dict[str, Any]:
    """Return the one network of a new guest, by its name."""
    if name in flavours.networks:
        return {name: flavours.network(name)}
    if name == USER_NETWORK:
        return {_NETWORK: {"type": "user"}}
    return {_NETWORK: {"bridge": name, **_subnet(bridges.get(name, ""))}}


def _named(nics: Any) -> tuple[str, ...]:
    return tuple(str(nic["network"]) for nic in nics if isinstance(nic, dict) and "network" in nic)


def new_site(wish: NewGuest, bridges: Mapping[str, str], flavours: Flavours = NOTHING) -> Site:
    """Return the site of a new guest. :raises SpecError: with every fault of the wish; see :func:`site_text`, too."""
    from vmhost.ops.sites import parse_site

    return parse_site(site_text(wish, bridges, flavours), "new guest", base=flavours.base)


def faults_of_wish(wish: NewGuest, bridges: Mapping[str, str]) -> dict[str, str]:
    """Return what is wrong with a wish by field of :class:`NewGuest`, the first fault of each; empty: nothing."""
    found: dict[str, str] = {}
    try:
        check_name(wish.name.strip())
    except ValueError as error:
        found["name"] = str(error)
        wish = replace(wish, name="guest")  # so that the rest is examined too
    try:
        new_site(wish, bridges)
    except SpecError as error:
        for fault in error.faults:
            found.setdefault(_field_of(fault.path, wish.name.strip()), fault.message)
    return found


def bridges_of(links: tuple[ObservedLink, ...]) -> dict[str, str]:
    """Return the bridges that a guest may be attached to, each with the host's own address on it, or empty."""
    return {link.name: next(iter(link.addresses), "") for link in links if link.kind == "bridge"}


def propose_create(ports: Ports, wish: NewGuest) -> Proposal:
    """Plan a new guest.

    :raises SpecError: the wish, or the file that it names, has faults; :raises NotFound: there is no such profile,
        network, bridge or file; :raises Refused: it cannot be made here.
    """
    from vmhost.model.permit import Permit

    flavours, bridges = read_flavours(ports, wish.site), bridges_of(ports.links.links())
    known = (*flavours.networks, *bridges, USER_NETWORK, NO_NETWORK)
    if wish.network is not None and wish.network not in known:
        text = f"there is no network or bridge {shown(wish.network)}; known here: {', '.join(known)}"
        raise NotFound(text, subject=wish.name, hint="vmhost guest create --help")
    return propose_site(ports, new_site(wish, bridges, flavours), Permit())


def propose_resize(ports: Ports, name: str, *, cpus: int | None, memory: int | None, permit: Permit) -> Proposal:
    """Plan other vCPUs and memory. :raises SpecError: a number makes no guest; see :func:`plan_resize` for the rest."""
    from vmhost.model.spec import CpuSpec, MemorySpec
    from vmhost.plan.resize import Resize, plan_resize

    applied, host = now_text(ports), host_spec(ports)
    wish = Resize(
        name,
        None if cpus is None else CpuSpec.model_validate({"count": cpus}),
        None if memory is None else MemorySpec.model_validate({"size": memory}),
        applied,
        user_name(),
    )

    def again(fresh: Observed) -> Plan:
        return plan_resize(wish, fresh, permit, host)

    return Proposal(operation=f"resize {name}", plan=again(observe(ports)), again=again)


def now_text(ports: Ports) -> str:
    """Return the time as metadata carries it (ISO 8601, UTC)."""
    return datetime.fromtimestamp(int(ports.clock.now()), UTC).isoformat().replace("+00:00", "Z")


def faults_of_size(cpus: str, memory: str) -> dict[str, str]:
    """Return what is wrong with vCPUs and memory as written, by ``cpus`` and ``memory``; empty: nothing."""
    found = faults_of_wish(NewGuest("x", "x", cpus=cpus, memory=memory), {})
    return {field: text for field, text in found.items() if field in ("cpus", "memory")}


def bytes_of(text: str) -> int | None:
    """Return the bytes of a size as written, or None where it is none."""
    try:
        return parse_size(text)
    except ValueError:
        return None


def _field_of(path: str, name: str) -> str:
    """Return the field of a form that a fault's path in the site file belongs to."""
    inside = path.removeprefix(f"guests.{name}.") if name else path
    section = inside.split(".")[0].split("[")[0]
    return _FIELDS.get(section, "name")


def _number(text: str) -> int | str:
    return int(text) if text.strip().isdecimal() and len(text) < 6 else text.strip()


def _subnet(address: str) -> dict[str, str]:
    """Return the addresses of a network behind a bridge on which the host has this address itself."""
    if not address:
        return {}
    interface = ipaddress.ip_interface(address)
    if interface.version != 4:
        return {}
    return {"subnet": str(interface.network), "gateway": str(interface.ip)}
