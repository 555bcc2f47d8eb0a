"""From a site as written to a site with nothing left open, or to every fault at once."""

from __future__ import annotations

from vmhost.model.errors import Fault, SpecError
from vmhost.model.spec import Site, SiteInput
from vmhost.model.spec.faults import as_faults
from vmhost.plan.inherit import Broken, Draft, draft_guests
from vmhost.plan.servicecheck import check_services
from vmhost.plan.sitecheck import check_guests, check_networks


def resolve(written: SiteInput, path: str = "") -> Site:
    """Return the site with every default, profile, count, id and maximum written out.

    ``path`` is the file that it came from, for messages.

    :raises SpecError: with every fault, by dotted path; nothing is half resolved.
    """
    site, faults = examine(written, path)
    if faults:
        raise SpecError(faults, subject=path, hint="vmhost schema")
    return site


def examine(written: SiteInput, path: str = "", broken: Broken | None = None) -> tuple[Site, tuple[Fault, ...]]:
    """Return the site as far as it can be resolved, and every fault.

    ``broken`` names entries, by section (``networks``, ``guests``, ...), of which at least a part was taken out because
    it could not be read: what depends on them is not faulty for that.
    """
    draft = Draft(written, broken or {})
    check_networks(draft)
    draft_guests(draft)
    check_guests(draft)
    services = check_services(draft)
    site = Site(
        name=written.name,
        path=path,
        host=written.host,
        bridges=written.bridges,
        networks=written.networks,
        guests=tuple(guest for _, guest in draft.guests),
        services=services,
    )
    return site, tuple(dict.fromkeys(as_faults(draft.faults)))
