"""New definitions against libvirt's own schema, before anything is created."""

from __future__ import annotations

from dataclasses import replace

from vmhost.drivers.schemas import domain_schema
from vmhost.model.errors import Absent, UsageError
from vmhost.model.observed import ObservedHost
from vmhost.model.plan import Note, Plan
from vmhost.model.steps import DefineDomain
from vmhost.ops.build import FAKE
from vmhost.render.validate import validate_domain

FAULTS_TOLD = 5


def check_definitions(plan: Plan, host: ObservedHost) -> Plan:
    """Return the plan when the schema of this machine's libvirt finds nothing wrong with its new definitions.

    Where the schema is not installed the plan says so in a note: libvirt itself then checks, when it is given them.
    Another machine's libvirt may be another version, so what is planned for it is not checked with ours.

    :raises UsageError: with the first faults; what the packaged templates make is valid, so an override is to blame.
    """
    new = [(item.subject, item.do.xml) for item in plan.steps if isinstance(item.do, DefineDomain)]
    if not new or not host.local:
        return plan
    try:
        schema = domain_schema()
    except Absent as error:
        if host.uri.startswith(FAKE):
            return plan  # nor is there a libvirt that would check
        text = f"{error.message}, so libvirt checks definitions only when it gets them ({error.hint})"
        return replace(plan, notes=(*plan.notes, Note(error.subject, text)))
    for subject, xml in new:
        faults = validate_domain(xml, schema)
        if faults:
            more = f"; {len(faults) - FAULTS_TOLD} more" if len(faults) > FAULTS_TOLD else ""
            text = f"libvirt's schema refuses the definition: {'; '.join(faults[:FAULTS_TOLD])}{more}"
            hint = "mv domain_templates domain_templates.off   # in vmhost's configuration directory"
            raise UsageError(text, subject=subject, hint=hint)
    return plan
