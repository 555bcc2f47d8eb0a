"""NICs on QEMU's user network in an existing definition: QEMU arguments, four for each."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from lxml import etree

from vmhost.model.identity import NicIdentity
from vmhost.render.document import drop, read
from vmhost.render.parse.domain import NIC_ALIAS, QEMU_NS, properties
from vmhost.render.templates import Templates
from vmhost.render.views import USER_NICS, user_nic_slot, user_nic_view

if TYPE_CHECKING:
    from vmhost.model.spec import NetworkSpec

_LINE = f"{QEMU_NS}commandline"
_ARG = f"{QEMU_NS}arg"


def set_user_nic(root: etree._Element, nic: NicIdentity, network: NetworkSpec, templates: Templates) -> None:
    """Add a NIC, or replace its arguments where they stand; its PCI slot stays.

    :raises Refused: the root bus has no slot left; :raises UsageError: the template is wrong.
    """
    line = root.find(_LINE)
    old = [] if line is None else _words(line, nic.id)
    slot = _slot(old) or user_nic_slot(_taken(line), root.findtext("name", ""))
    new = read(templates.render(USER_NICS, user_nics=(user_nic_view(nic, network, slot),)))
    if line is None:
        root.append(new)
        return
    place = line.index(old[0]) if old else len(line)
    drop_user_nic(root, nic.id, keep_line=True)
    for number, word in enumerate(list(new)):
        line.insert(place + number, word)


def drop_user_nic(root: etree._Element, nic_id: str, *, keep_line: bool = False) -> None:
    """Remove a NIC's arguments; arguments that others gave stay."""
    line = root.find(_LINE)
    if line is None:
        return
    for word in _words(line, nic_id):
        drop(word)
    if len(line) == 0 and not keep_line:
        drop(line)


def _words(line: etree._Element, nic_id: str) -> list[etree._Element]:
    """Return the arguments that make a NIC, options and values, in their order."""
    ours = {("-netdev", f"host-{nic_id}"), ("-device", f"{NIC_ALIAS}{nic_id}")}
    arguments = line.findall(_ARG)
    found: list[etree._Element] = []
    for option, value in pairwise(arguments):
        if (option.get("value", ""), properties(value.get("value", "")).get("id", "")) in ours:
            found += [option, value]
    return found


def _slot(words: list[etree._Element]) -> int:
    """Return the PCI slot among a NIC's arguments, or 0."""
    for word in words:
        slot = properties(word.get("value", "")).get("addr", "")
        if slot:
            return int(slot, 16)
    return 0


def _taken(line: etree._Element | None) -> set[int]:
    """Return the slots of the root bus that any argument names."""
    values = [] if line is None else [properties(arg.get("value", "")) for arg in line.findall(_ARG)]
    slots = (value["addr"].partition(".")[0] for value in values if value.get("bus") == "pcie.0" and "addr" in value)
    return {int(slot, 16) for slot in slots}
