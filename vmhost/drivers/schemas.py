"""The RELAX NG schemas that libvirt installs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from lxml import etree

from vmhost.model.errors import Absent, DamagedData

SCHEMAS = Path("/usr/share/libvirt/schemas")
"""Where every distribution's libvirt package puts them."""


@cache
def domain_schema(path: Path = SCHEMAS / "domain.rng") -> etree.RelaxNG:
    """Return the compiled schema of domain XML; it is read once in a process, in some hundredths of a second.

    :raises Absent: libvirt's schemas are not installed; :raises DamagedData: the file is no schema.
    """
    if not path.is_file():
        hint = "apt-get install libvirt-clients   # or: dnf install libvirt-client"
        raise Absent("libvirt's schema of domains is not installed", subject=str(path), hint=hint)
    try:
        return etree.RelaxNG(file=str(path))
    except (etree.RelaxNGParseError, etree.XMLSyntaxError) as error:
        raise DamagedData(f"not a schema: {error}", subject=str(path), hint=f"dpkg -V $(dpkg -S {path})") from error


def known_valid(xml: str) -> bool:
    """Whether the installed schema accepts a domain; False also where that cannot be told."""
    try:
        return domain_schema().validate(etree.fromstring(xml))
    except (Absent, DamagedData, etree.XMLSyntaxError, ValueError):
        return False
