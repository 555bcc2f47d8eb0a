"""What holds for the whole host: its reserve and ratios, from ``host.yaml`` in vmhost's configuration directory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vmhost.model.spec import HostSpec, Site

if TYPE_CHECKING:
    from vmhost.ports import Ports

FILE: Final = "host.yaml"


def host_spec(ports: Ports) -> HostSpec:
    """Return what the host's own file says, the defaults without one.

    :raises SpecError: it has faults, with all of them; :raises PermissionDenied: it may not be read.
    """
    from vmhost.drivers.files import os_errors
    from vmhost.ops.sites import load_site

    path = ports.layout.config / FILE
    with os_errors(path, "read"):
        there = path.exists()
    return load_site(path).host if there else HostSpec()


def with_host(site: Site, ports: Ports) -> Site:
    """Return a site with everything that it does not say of the host itself from the host's own file."""
    given = host_spec(ports).model_dump(exclude_unset=True)
    said = {key: value for key, value in site.host.model_dump().items() if key in given and _says(site, key)}
    missing = {key: value for key, value in given.items() if key not in said}
    return site.model_copy(update={"host": site.host.model_copy(update=missing)}) if missing else site


def _says(site: Site, key: str) -> bool:
    return key in site.host.model_fields_set
