"""What makes a site contradict itself: networks, names, addresses, ids and accounts."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from itertools import combinations

from vmhost.model.spec import BridgeSpec, GuestSpec, NetworkSpec, NicSpec
from vmhost.model.spec.cloudinit import FILES_LIMIT
from vmhost.model.spec.faults import Key
from vmhost.model.spec.guest import NO_ADDRESS
from vmhost.model.spec.network import check_host_address
from vmhost.model.units import format_size, hostname_of
from vmhost.plan.addresses import realm_of
from vmhost.plan.inherit import Draft
from vmhost.plan.uplinkcheck import check_bridge, check_host_places
from vmhost.plan.vlancheck import check_vlans, port_fault

Claim = tuple[str, str, str, str, tuple[Key, ...]]
RESERVED_DISKS = frozenset({"seed"})


def check_networks(draft: Draft) -> None:
    """Note what is wrong with bridges and networks, each in itself and among each other."""
    for name, bridge in draft.written.bridges.items():
        check_bridge(draft, name, bridge)
    for name, network in draft.written.networks.items():
        bridge_spec = draft.written.bridges.get(network.bridge or "")
        if bridge_spec and network.mtu and network.mtu > bridge_spec.mtu:
            text = f"{network.mtu} is more than the {bridge_spec.mtu} of bridge {network.bridge}"
            draft.fault(text, "networks", name, "mtu")
    check_vlans(draft)
    check_host_places(draft)
    _check_overlaps(draft)


def _check_overlaps(draft: Draft) -> None:
    """The host reaches guests by its routes, so one subnet cannot lie behind two bridges."""
    subnets: list[tuple[tuple[Key, ...], str, str]] = []
    for name, bridge in draft.written.bridges.items():
        if bridge.address:
            subnets.append(
                (("bridges", name, "address"), f"bridge {name}", str(ipaddress.ip_interface(bridge.address).network))
            )
    for name, network in draft.written.networks.items():
        # What is not reached by the host's own routes may overlap: VLANs keep it apart.
        if network.subnet and network.bridge and (network.reach == "route" or network.address):
            own_link = network.address and isinstance(network.vlan, int)
            where = f"VLAN {network.vlan} of {network.bridge}" if own_link else f"bridge {network.bridge}"
            subnets.append((("networks", name, "subnet"), where, network.subnet))
    for (_, first_link, first), (path, link, subnet) in combinations(subnets, 2):
        one, other = ipaddress.ip_network(first), ipaddress.ip_network(subnet)
        if link != first_link and one.version == other.version and one.overlaps(other):
            draft.fault(f"{subnet} on {link} overlaps with {first} on {first_link}", *path)


def check_guests(draft: Draft) -> None:
    """Note what is wrong with guests, each in itself and among each other."""
    for entry, guest in draft.guests:
        at: tuple[Key, ...] = ("guests", entry)
        if _counted(draft, entry):
            _check_counted(draft, guest, at)
        _check_ids(draft, guest, at)
        _check_nics(draft, guest, at)
        _check_cloud_init(draft, guest, at)
    for entry, nics in draft.halves:
        for number, nic in enumerate(nics):
            _check_nic(draft, nic, ("guests", entry, "nics", number))
    _check_unique(draft)


def _counted(draft: Draft, entry: str) -> bool:
    return (draft.written.guests[entry].count or 1) > 1


def _check_counted(draft: Draft, guest: GuestSpec, at: tuple[Key, ...]) -> None:
    for number, nic in enumerate(guest.nics):
        place = (*at, "nics", number)
        if nic.address not in NO_ADDRESS:
            draft.fault(
                f"{nic.address} cannot belong to several guests: write auto, or name each guest", *place, "address"
            )
        if nic.mac is not None:
            draft.fault(f"{nic.mac} cannot belong to several guests: leave it out, or name each guest", *place, "mac")


def _check_ids(draft: Draft, guest: GuestSpec, at: tuple[Key, ...]) -> None:
    for kind, ids in (("disks", [disk.id for disk in guest.disks]), ("nics", [nic.id for nic in guest.nics])):
        seen: set[str | None] = set()
        for number, name in enumerate(ids):
            if name in seen:
                draft.fault(f"{name!r} is the id of another one of its {kind}", *at, kind, number, "id")
            if kind == "disks" and name in RESERVED_DISKS:
                draft.fault(f"{name!r} is the id of vmhost's own disk: write another one", *at, kind, number, "id")
            seen.add(name)


def _check_nics(draft: Draft, guest: GuestSpec, at: tuple[Key, ...]) -> None:
    networks = draft.written.networks
    users = []
    for number, nic in enumerate(guest.nics):
        network, place = networks.get(nic.network), (*at, "nics", number)
        if network is not None and network.type == "user":
            users.append(number)
        _check_nic(draft, nic, place)
    for number in users[1:]:
        draft.fault(
            "a guest has at most one NIC on a user network: QEMU gives all of them the same address",
            *at,
            "nics",
            number,
        )
    asked = guest.ready.by == "ssh" and not draft.partial([("guests", str(at[1]))])
    if asked and not any(_known_address(nic, networks.get(nic.network)) for nic in guest.nics):
        text = "ssh needs a NIC whose address is known before: write address: auto, or ready: {by: agent}"
        draft.fault(text, *at, "ready", "by")


def _check_nic(draft: Draft, nic: NicSpec, place: tuple[Key, ...]) -> None:
    network = draft.written.networks.get(nic.network)
    if network is None:
        return
    bridge = draft.written.bridges.get(network.bridge or "")
    if fault := port_fault(nic, network, bridge):
        draft.fault(fault, *place, "tagged" if nic.tagged else "network")
    if problem := _address_problem(nic, network, bridge):
        draft.fault(problem, *place, "address")


def _known_address(nic: NicSpec, network: NetworkSpec | None) -> bool:
    if network is None or network.type == "user":
        return True
    return network.reach != "agent" and nic.address not in ("dhcp", "none")


def _address_problem(nic: NicSpec, network: NetworkSpec, bridge: BridgeSpec | None) -> str:
    """Return why a NIC cannot have its address on its network, or an empty text."""
    if nic.address == "none" or nic.address == "dhcp":
        return ""
    if network.type == "user":
        return (
            f"{nic.address!r} is not possible on the user network {nic.network}: QEMU gives the address, leave it out"
        )
    if network.subnet is None:
        return f"{nic.address!r} needs a subnet, and network {nic.network} has none: give it one, or write dhcp"
    if nic.address == "auto":
        return ""
    try:
        check_host_address(nic.address, network.subnet)
    except ValueError as error:
        return str(error)
    if nic.address == network.reach_address:
        return f"{nic.address} is the host's own address on network {nic.network} (reach_address)"
    if nic.address == network.gateway:
        return f"{nic.address} is the gateway of network {nic.network}"
    if network.address and ipaddress.ip_interface(network.address).ip == ipaddress.ip_address(nic.address):
        return f"{nic.address} is the host's own address on network {nic.network}"
    if bridge and bridge.address and ipaddress.ip_interface(bridge.address).ip == ipaddress.ip_address(nic.address):
        return f"{nic.address} is the host's own address on bridge {network.bridge}"
    return ""


def _check_cloud_init(draft: Draft, guest: GuestSpec, at: tuple[Key, ...]) -> None:
    seed, at = guest.cloud_init, (*at, "cloud_init")
    if seed.user == "root":
        draft.fault("vmhost signs in as an ordinary account with sudo: write another name than root", *at, "user")
    names = [seed.user]
    for number, user in enumerate(seed.users):
        if user.name in names:
            own = "vmhost's own account in the guest" if user.name == seed.user else "given twice"
            draft.fault(f"{user.name!r} is {own}", *at, "users", number, "name")
        names.append(user.name)
    paths: list[str] = []
    for number, file in enumerate(seed.files):
        if file.path in paths:
            draft.fault(f"{file.path!r} is written twice", *at, "files", number, "path")
        paths.append(file.path)
    total = sum(len((file.content or "").encode()) for file in seed.files)
    if total > FILES_LIMIT:
        text = (
            f"the files are {format_size(total)} together: at most {format_size(FILES_LIMIT)}; copy large ones over SSH"
        )
        draft.fault(text, *at, "files")
    if seed.user_data is not None and seed.user_data.content is None:
        draft.fault(f"the file {seed.user_data.file!r} was not read", *at, "user_data")


def _check_unique(draft: Draft) -> None:
    owners: dict[tuple[str, str, str], str] = {}
    for kind, realm, value, owner, path in _claims(draft):
        first = owners.setdefault((kind, realm, value.lower()), owner)
        if first != owner:
            draft.fault(f"{kind} {value} belongs to {first}", *path)


def _claims(draft: Draft) -> Iterator[Claim]:
    """Yield everything that only one guest may have: kind, realm, value, owner, and where it is written."""
    names: dict[str, str] = {}
    for entry, guest in draft.guests:
        at: tuple[Key, ...] = ("guests", entry)
        if names.setdefault(guest.name, entry) != entry:
            draft.fault(f"two guests are named {guest.name}: one is written as {names[guest.name]}", *at)
            continue
        try:
            yield "host name", "", hostname_of(guest.name), f"guest {guest.name}", at
        except ValueError as error:
            draft.fault(str(error), *at)
        if not _counted(draft, entry):
            yield from _nic_claims(draft, guest.name, guest.nics, at)
    for entry, nics in draft.halves:
        if not _counted(draft, entry):
            yield from _nic_claims(draft, entry, nics, ("guests", entry))


def _nic_claims(draft: Draft, guest: str, nics: tuple[NicSpec, ...], at: tuple[Key, ...]) -> Iterator[Claim]:
    for number, nic in enumerate(nics):
        owner = f"NIC {nic.id} of guest {guest}"
        if nic.mac:
            yield "MAC", "", nic.mac, owner, (*at, "nics", number, "mac")
        if nic.address not in NO_ADDRESS:
            network = draft.written.networks.get(nic.network)
            # One that vmhost chooses the VLAN of is in none yet, and shares it with no other network.
            realm = nic.network if network is None or network.vlan == "auto" else realm_of(network)
            yield "address", realm, nic.address, owner, (*at, "nics", number, "address")
