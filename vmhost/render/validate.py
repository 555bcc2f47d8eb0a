"""Domain XML against libvirt's own schema."""

from __future__ import annotations

from lxml import etree

from vmhost.model.errors import DamagedData
from vmhost.render.document import read


def validate_domain(xml: str, schema: etree.RelaxNG) -> tuple[str, ...]:
    """Return every fault that the schema finds, each with its line in ``xml``; empty when there is none.

    :param schema: ``domain.rng`` of the libvirt that will read it, compiled (``vmhost.drivers.schemas.domain_schema``).
    """
    try:
        root = read(xml)
    except DamagedData as error:
        return (error.message,)
    if schema.validate(root):
        return ()
    return tuple(f"line {entry.line}: {entry.message}" for entry in schema.error_log)
