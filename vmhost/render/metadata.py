"""Our element in a domain's ``<metadata>``, written; :mod:`vmhost.render.parse.metadata` reads it."""

from __future__ import annotations

import re
from typing import Final

from lxml import etree

from vmhost.model.errors import UsageError
from vmhost.model.identity import NAMESPACE, GuestIdentity, GuestMetadata, NicIdentity
from vmhost.model.services import DeployedService

PREFIX: Final = "vmhost"
# Characters that JSON allows in a string and XML 1.0 (section 2.2) does not.
_NOT_XML = re.compile("[\ufffe\uffff\ud800-\udfff]")


def metadata_xml(metadata: GuestMetadata) -> str:
    """Return the element as text. It is versioned; the spec inside is JSON as escaped text.

    :raises UsageError: a text holds what XML cannot hold, as a control character.
    """
    return etree.tostring(metadata_element(metadata), encoding="unicode")


def metadata_element(metadata: GuestMetadata) -> etree._Element:
    """Return the element; see :func:`metadata_xml`."""
    try:
        return _element(metadata)
    except ValueError as error:
        raise UsageError(
            f"a text of this guest cannot be written to XML: {error}",
            subject=metadata.identity.name,
            hint="remove control characters from the site file",
        ) from error


def _element(metadata: GuestMetadata) -> etree._Element:
    root = etree.Element(_tag("guest"), nsmap={PREFIX: NAMESPACE})
    root.set("version", str(metadata.version))
    _text(root, "site", metadata.site)
    _text(root, "owner", metadata.owner)
    _text(root, "applied", metadata.applied, user=metadata.user, command=metadata.command)
    _text(root, "state", protect=_flag(metadata.protect), pending=_flag(metadata.pending))
    root.append(_identity(metadata.identity))
    for volume in metadata.volumes:
        _text(root, "volume", volume)
    for service in metadata.services:
        root.append(_service(service))
    _text(root, "spec", _NOT_XML.sub(lambda found: f"\\u{ord(found.group()):04x}", metadata.spec))
    return root


def _service(service: DeployedService) -> etree._Element:
    element = etree.Element(_tag("service"))
    element.text = service.state or None
    _set(element, name=service.name, version=service.version, env=service.env, sha256=service.sha256)
    _set(element, deployed=service.deployed, user=service.user, stopped=_flag(service.stopped), roll=service.roll)
    return element


def _identity(identity: GuestIdentity) -> etree._Element:
    element = etree.Element(_tag("identity"))
    element.set("uuid", identity.uuid)
    element.set("name", identity.name)
    element.set("instance-id", identity.instance_id)
    _text(element, "host-key", identity.host_key)
    for nic in identity.nics:
        element.append(_nic(nic))
    return element


def _nic(nic: NicIdentity) -> etree._Element:
    element = etree.Element(_tag("nic"))
    port = str(nic.ssh_port) if nic.ssh_port else ""
    _set(element, id=nic.id, network=nic.network, mac=nic.mac, tap=nic.tap, address=nic.address)
    _set(element, **{"ssh-port": port}, pvid=str(nic.pvid) if nic.pvid else "", tagged=nic.tagged)
    _set(element, bridge=nic.bridge, reach=nic.reach, via=nic.via)
    _set(element, bridge=nic.bridge, reach=nic.reach, isolated=_flag(nic.isolated), spoofing=nic.spoofing)
    _set(element, inbound=str(nic.inbound or ""), outbound=str(nic.outbound or ""))
    return element


def _tag(name: str) -> str:
    return f"{{{NAMESPACE}}}{name}"


def _flag(value: bool) -> str:
    return "yes" if value else ""


def _text(parent: etree._Element, name: str, text: str = "", **attributes: str) -> None:
    element = etree.SubElement(parent, _tag(name))
    element.text = text or None
    _set(element, **attributes)


def _set(element: etree._Element, **attributes: str) -> None:
    """Set the attributes that are not empty."""
    for name, value in attributes.items():
        if value:
            element.set(name, value)
