"""One NIC more, or less, for a guest of a site: the host has it at once, its site file is told of it afterwards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from vmhost.model.errors import Fault, NotFound, Refused, SpecError
from vmhost.model.permit import Permit
from vmhost.model.plan import Note, Plan
from vmhost.ops.proposals import Proposal, propose_site

if TYPE_CHECKING:
    from vmhost.model.observed import Observed
    from vmhost.model.spec import GuestSpec, NicSpec, Site
    from vmhost.ports import Ports

ATTACH: Final = "guest attach"
DETACH: Final = "guest detach"


def propose_attach(ports: Ports, site: Site, name: str, nic: Mapping[str, Any], permit: Permit) -> Proposal:
    """Plan one more NIC for a guest; see :meth:`vmhost.Host.plan_attach`.

    :param nic: what a site file says of it; None stands for what is not said.
    """
    guest = _guest(site, name)
    said = {key: value for key, value in nic.items() if value not in (None, "", False)}
    changed = _with_nics(site, guest, [*(item.model_dump(exclude_none=True) for item in guest.nics), said])
    added = _guest(changed, name).nics[-1]
    return _propose(ports, site, changed, ATTACH, Note(name, _told(site, "add", "to", added)), permit)


def propose_detach(ports: Ports, site: Site, name: str, nic: str, permit: Permit) -> Proposal:
    """Plan one NIC less for a guest; see :meth:`vmhost.Host.plan_detach`. :param nic: its id."""
    guest = _guest(site, name)
    gone = next((item for item in guest.nics if item.id == nic), None)
    if gone is None:
        have = ", ".join(str(item.id) for item in guest.nics) or "none"
        raise NotFound(f"it has no NIC {nic} (it has: {have})", subject=name, hint=f"vmhost guest show {name}")
    left = [item.model_dump(exclude_none=True) for item in guest.nics if item is not gone]
    changed = _with_nics(site, guest, left)
    return _propose(ports, site, changed, DETACH, Note(name, _told(site, "take", "from", gone)), permit)


def _propose(ports: Ports, site: Site, changed: Site, command: str, note: Note, permit: Permit) -> Proposal:
    """Plan the changed site, if the host is as the unchanged one says: so nothing else is done on the way.

    :raises Refused: it is not.
    """
    if not propose_site(ports, site, Permit(), secrets=False).empty:
        text = f"the host is not as {site.path or site.name} says: that comes first"
        raise Refused(text, subject=note.subject, hint=f"vmhost apply {site.path or 'SITE'}")
    proposal = propose_site(ports, changed, permit, command=f"{command} {note.subject}")

    def told(plan: Plan) -> Plan:
        return replace(plan, notes=(*plan.notes, note)) if plan.steps else plan

    def again(fresh: Observed) -> Plan:
        return told(proposal.again(fresh))

    return replace(proposal, plan=told(proposal.plan), again=again)


def _guest(site: Site, name: str) -> GuestSpec:
    found = next((guest for guest in site.guests if guest.name == name), None)
    if found is None:
        raise NotFound(f"site {site.name} has no such guest", subject=name, hint="vmhost guest list")
    return found


def _with_nics(site: Site, guest: GuestSpec, nics: list[dict[str, Any]]) -> Site:
    """Return the site with other NICs of a guest, checked as a site file is.

    :raises SpecError: with every fault of the NICs.
    """
    from pydantic import ValidationError

    from vmhost.model.spec import API_VERSION, SiteInput
    from vmhost.model.spec.faults import as_faults, faults_of
    from vmhost.plan.resolve import resolve

    data = {
        "apiVersion": API_VERSION,
        "name": site.name,
        "bridges": site.bridges,
        "networks": site.networks,
        "guests": {
            one.name: {
                "image": one.image,
                "memory": {"size": one.memory.size},
                "disks": one.disks,
                "nics": nics if one is guest else one.nics,
            }
            for one in site.guests
        },
    }
    try:
        checked = resolve(SiteInput.model_validate(data), site.path)
    except ValidationError as error:
        faults = as_faults(faults_of(error, SiteInput, data))
    except SpecError as error:
        faults = list(error.faults)
    else:
        made = guest.model_copy(update={"nics": _guest(checked, guest.name).nics})
        return site.model_copy(update={"guests": tuple(made if one is guest else one for one in site.guests)})
    told = [Fault(fault.path.partition("nics")[2].partition(".")[2], fault.message) for fault in faults]
    raise SpecError(told, subject=guest.name, hint=f"vmhost {ATTACH} --help")


def _told(site: Site, verb: str, where: str, nic: NicSpec) -> str:
    words = json.dumps(nic.model_dump(exclude_none=True), ensure_ascii=False)
    place = site.path or "the site file"
    return f"{verb} {words} {where} its nics in {place}, or the next apply will refuse this guest"
