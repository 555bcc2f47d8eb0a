"""Our element in a domain's ``<metadata>``, read leniently: a newer vmhost may have written it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from xml.etree.ElementTree import Element

from vmhost.model.identity import METADATA_VERSION, NAMESPACE, GuestIdentity, GuestMetadata, NicIdentity
from vmhost.model.services import DeployedService
from vmhost.render.parse.reading import look_into

if TYPE_CHECKING:
    from vmhost.render.parse.reading import Node

_NS: Final = f"{{{NAMESPACE}}}"
_GUEST: Final = f"{_NS}guest"


def parse_metadata(xml: str | Node) -> GuestMetadata | None:
    """Return our metadata from a domain's XML, from its root, or from our element alone; None: a foreign domain.

    A domain is foreign, too, whose metadata are another guest's: somebody copied a definition, and the metadata came
    along. Its disks and its network are named in them, and are not the copy's.

    What a newer vmhost added is passed over, what it left out is empty. An element whose version cannot be read counts
    as newer, so that nothing is changed on its word.

    :raises DamagedData: it is not well-formed XML.
    """
    root = look_into(xml)
    if root.tag == _GUEST:
        return _metadata(root)
    element = root.find(f"metadata/{_GUEST}")
    if element is None:
        return None
    found = _metadata(element)
    ours = found.identity.uuid == root.findtext("uuid") or not (found.identity.uuid or found.readable)
    return found if ours else None


def parse_copied(xml: str | Node) -> str:
    """Return the UUID of the guest whose metadata a domain holds as a copy, or empty. :raises DamagedData: no XML."""
    root = look_into(xml)
    element = root.find(f"metadata/{_GUEST}")
    uuid = "" if element is None else _identified(element)
    return uuid if uuid != root.findtext("uuid") else ""


def parse_drill(xml: str | Node) -> str:
    """Return the UUID of the guest that a domain is a drill of, or empty. :raises DamagedData: it is no XML."""
    element = look_into(xml).find(f"metadata/{_NS}drill")
    return "" if element is None else element.get("guest", "")


def _identified(element: Node) -> str:
    """Return whose metadata these are."""
    return _child(element, "identity").get("uuid", "")


def _metadata(element: Node) -> GuestMetadata:
    applied, state = _child(element, "applied"), _child(element, "state")
    return GuestMetadata(
        version=_version(element.get("version", "")),
        site=_child(element, "site").text or "",
        owner=_child(element, "owner").text or "",
        applied=applied.text or "",
        identity=_identity(_child(element, "identity")),
        spec=_child(element, "spec").text or "",
        volumes=tuple(volume.text or "" for volume in element.findall(f"{_NS}volume")),
        user=applied.get("user", ""),
        protect=state.get("protect") == "yes",
        pending=state.get("pending") == "yes",
        command=applied.get("command", ""),
        services=tuple(_service(service) for service in element.findall(f"{_NS}service")),
    )


def _service(element: Node) -> DeployedService:
    return DeployedService(
        name=element.get("name", ""),
        version=element.get("version", ""),
        env=element.get("env", ""),
        sha256=element.get("sha256", ""),
        state=element.text or "",
        deployed=element.get("deployed", ""),
        user=element.get("user", ""),
        stopped=element.get("stopped") == "yes",
        roll=element.get("roll", ""),
    )


def _identity(element: Node) -> GuestIdentity:
    return GuestIdentity(
        uuid=element.get("uuid", ""),
        name=element.get("name", ""),
        instance_id=element.get("instance-id", ""),
        host_key=_child(element, "host-key").text or "",
        nics=tuple(_nic(nic) for nic in element.findall(f"{_NS}nic")),
    )


def _nic(element: Node) -> NicIdentity:
    return NicIdentity(
        id=element.get("id", ""),
        network=element.get("network", ""),
        mac=element.get("mac", ""),
        tap=element.get("tap", ""),
        address=element.get("address", ""),
        ssh_port=_number(element.get("ssh-port", "")),
        pvid=_number(element.get("pvid", "")),
        tagged=element.get("tagged", ""),
        bridge=element.get("bridge", ""),
        reach=element.get("reach", ""),
        via=element.get("via", ""),
        isolated=element.get("isolated") == "yes",
        spoofing=element.get("spoofing", ""),
        inbound=_number(element.get("inbound", "")),
        outbound=_number(element.get("outbound", "")),
    )


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() else 0


def _child(element: Node, name: str) -> Node:
    """Return a child, or an empty stand-in for one that is not there."""
    found = element.find(f"{_NS}{name}")
    return Element(f"{_NS}{name}") if found is None else found


def _version(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and int(text) > 0 else METADATA_VERSION + 1
