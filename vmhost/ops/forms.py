"""What a person fills in, in a form or as flags: a new guest, and other vCPUs and memory for one that exists."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from vmhost.engine.observe import observe
from vmhost.model.errors import SpecError
from vmhost.model.units import check_name, parse_size
from vmhost.ops.build import user_name
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
}


@dataclass(frozen=True, slots=True)
class NewGuest:
    """A new guest as a person writes it: every field is text, as in a site file.

    ``network`` is a bridge of this host, ``user`` (QEMU's own network) or ``none``; ``address`` an address of the
    bridge's subnet, ``auto``, ``dhcp`` or ``none``; empty: ``auto`` where the subnet is known.
    """

    name: str
    image: str
    cpus: str = "1"
    memory: str = "1G"
    disk: str = "10G"
    network: str = USER_NETWORK
    address: str = ""


def site_text(wish: NewGuest, bridges: Mapping[str, str]) -> str:
    """Return the site file of a new guest: a site of the guest's own name with nothing else in it.

    :param bridges: the host's bridges, each with its own address and prefix on it, or empty.
    """
    network: dict[str, Any] = {"type": "user"}
    if wish.network not in (USER_NETWORK, NO_NETWORK):
        network = {"bridge": wish.network, **_subnet(bridges.get(wish.network, ""))}
    nic = {"network": _NETWORK, **({"address": wish.address.strip()} if wish.address.strip() else {})}
    guest: dict[str, Any] = {
        "image": wish.image.strip(),
        "cpus": _number(wish.cpus),
        "memory": wish.memory.strip(),
        "disks": [{"size": wish.disk.strip()}],
        "nics": [] if wish.network == NO_NETWORK else [nic],
    }
    site = {"apiVersion": "vmhost/v1", "name": wish.name.strip()}
    if wish.network != NO_NETWORK:
        site["networks"] = {_NETWORK: network}  # type: ignore[assignment]
    return json.dumps({**site, "guests": {wish.name.strip(): guest}}, indent=2) + "\n"


def new_site(wish: NewGuest, bridges: Mapping[str, str]) -> Site:
    """Return the site of a new guest. :raises SpecError: with every fault of the wish."""
    from vmhost.ops.sites import parse_site

    return parse_site(site_text(wish, bridges), "new guest")


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
    """Plan a new guest. :raises SpecError: the wish is none; :raises Refused: it cannot be made here."""
    from vmhost.model.permit import Permit

    site = new_site(wish, bridges_of(ports.links.links()))
    return propose_site(ports, site, Permit())


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
