"""One NIC more, or less, for a guest of a site: the host has it at once, its site file is told of it afterwards."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
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


@dataclass(frozen=True, slots=True)
class Nics:
    """What :attr:`vmhost.Host.nics` gives; nothing is changed before the plan is applied."""

    ports: Ports

    def plan_attach(self, site: Site, name: str, *, permit: Permit | None = None, **nic: Any) -> Proposal:
        """Return what would be done to give a guest of a site one more NIC, past its file.

        :param nic: its fields as in a site file: ``network="prod"``, ``address="10.20.0.14"``, ``tagged="300-310"``.
        :raises SpecError: it is no NIC; :raises NotFound: the site has no such guest.
        :raises Refused: it cannot be had, or the host is not as the site says.
        """
        guest = _guest(site, name)
        said = {key: value for key, value in nic.items() if value not in (None, "", False)}
        changed = _with_nics(site, guest, [*(item.model_dump(exclude_none=True) for item in guest.nics), said])
        added = _guest(changed, name).nics[-1]
        note = Note(name, _told(site, "add", "to", added))
        return _propose(self.ports, site, changed, ATTACH, note, permit or Permit())

    def plan_detach(self, site: Site, name: str, nic: str, *, permit: Permit | None = None) -> Proposal:
        """Return what would be done to take a NIC, by its id, out of a guest of a site, past its file.

        :raises NotFound: the site has no such guest, or that has no such NIC.
        :raises Refused: the host is not as the site says.
        """
        guest = _guest(site, name)
        gone = next((item for item in guest.nics if item.id == nic), None)
        if gone is None:
            have = ", ".join(str(item.id) for item in guest.nics) or "none"
            raise NotFound(f"it has no NIC {nic} (it has: {have})", subject=name, hint=f"vmhost guest show {name}")
        left = [item.model_dump(exclude_none=True) for item in guest.nics if item is not gone]
        note = Note(name, _told(site, "take", "from", gone))
        return _propose(self.ports, site, _with_nics(site, guest, left), DETACH, note, permit or Permit())


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
