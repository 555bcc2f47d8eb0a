"""The secrets of a site, read at the last moment and kept in memory only."""

from __future__ import annotations

from collections.abc import Container

from vmhost.model.errors import DriverError
from vmhost.model.spec import SecretRef, Site


def read_secrets(site: Site, guests: Container[str]) -> dict[str, str]:
    """Return the values of all secrets that the seeds of these guests of a site refer to, by key.

    :raises Absent: one is missing; :raises PermissionDenied: its file can be read by others.
    :raises DriverError: another fault, or several, each on a line with its guest and place. No message has the values.
    """
    from vmhost.drivers.secrets import SecretReader
    from vmhost.render.seed import secret_references

    references: dict[str, SecretRef] = {}
    places: dict[str, list[str]] = {}
    for spec in site.guests:
        for place, reference in secret_references(spec) if spec.name in guests else ():
            references[reference.key()] = reference
            places.setdefault(reference.key(), []).append(f"{spec.name}: {place}")
    if not references:
        return {}
    reader = SecretReader()
    values: dict[str, str] = {}
    failures: list[DriverError] = []
    for key, reference in references.items():
        try:
            values[key] = reader.read(reference)
        except DriverError as error:
            failures.append(type(error)(f"{', '.join(places[key])}: {error}", hint=error.hint))
    _raise_all(failures)
    return values


def _raise_all(failures: list[DriverError]) -> None:
    if len(failures) == 1:
        raise failures[0]
    if failures:
        text = "\n".join(error.message for error in failures)
        hint = "; ".join(dict.fromkeys(error.hint for error in failures))
        raise DriverError(f"{len(failures)} secrets cannot be had:\n{text}", hint=hint)
