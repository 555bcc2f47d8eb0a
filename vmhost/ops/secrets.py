"""The secrets of a site, read at the last moment and kept in memory only."""

from __future__ import annotations

from collections.abc import Container

from vmhost.model.spec import Site


def read_secrets(site: Site, guests: Container[str]) -> dict[str, str]:
    """Return the values of all secrets that the seeds of these guests of a site refer to, by key.

    :raises NotFound: one is missing; :raises PermissionDenied: its file can be read by others. The values appear in
        no message.
    """
    from vmhost.drivers.secrets import SecretReader
    from vmhost.render.seed import secret_references

    references = {
        reference.key(): reference
        for spec in site.guests
        if spec.name in guests
        for reference in secret_references(spec)
    }
    if not references:
        return {}
    reader = SecretReader()
    return {key: reader.read(reference) for key, reference in references.items()}
