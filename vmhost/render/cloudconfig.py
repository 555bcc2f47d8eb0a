"""cloud-init's formats of user-data: which one a text is, and whether cloud-init's own schema finds it valid."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from vmhost.model.errors import Fault
from vmhost.model.spec.faults import dotted, nearest
from vmhost.model.units import shown

CLOUD_CONFIG: Final = "#cloud-config"
FORMATS: Final = (
    "## template: jinja",
    "#cloud-config-archive",
    CLOUD_CONFIG,
    "#cloud-boothook",
    "#include-once",
    "#include",
    "#part-handler",
    "#!",
)
"""First lines by which cloud-init tells formats apart, the longer of two before the shorter (cloudinit.handlers)."""

OURS: Final = {
    "ssh_keys": "vmhost gives the guest its SSH host key, and trusts no other",
    "ssh_deletekeys": "vmhost gives the guest its SSH host key, and trusts no other",
}
JOINED: Final = ("users", "write_files", "runcmd", "packages")


def format_of(text: str) -> str:
    """Return the entry of :data:`FORMATS` that cloud-init takes a text for; empty when it would ignore it."""
    begin = text.lstrip().lower()
    if begin.startswith("#cloud-config-jsonp"):
        return ""
    return next((known for known in FORMATS if begin.startswith(known)), "")


def own_user_data_faults(config: Any, schema: Mapping[str, Any]) -> tuple[Fault, ...]:
    """Return what is wrong with a person's own cloud-config, given as plain data.

    Beside cloud-init's schema: what vmhost must decide alone, and lists that are joined with vmhost's own.
    """
    if not isinstance(config, dict):
        return (Fault("", "a cloud-config is a mapping"),)
    faults = [Fault(key, f"is not possible here: {why}") for key, why in OURS.items() if key in config]
    for key in JOINED:
        if key in config and not isinstance(config[key], list):
            faults.append(Fault(key, f"must be a list here, not {shown(config[key])}: it is joined with vmhost's own"))
    named = {fault.path for fault in faults}
    return (*faults, *(fault for fault in _faults(config, schema) if fault.path not in named))


def validate_user_data(document: str, schema: Mapping[str, Any]) -> tuple[Fault, ...]:
    """Return what is wrong with a cloud-config in JSON by cloud-init's own schema, each fault with its path."""
    return _faults(json.loads(document), schema)


def validate_network_config(document: str, schema: Mapping[str, Any]) -> tuple[Fault, ...]:
    """Return what is wrong with a network-config (version 2) in JSON by cloud-init's own schema."""
    return _faults(json.loads(document), schema)


def _faults(data: Any, schema: Mapping[str, Any]) -> tuple[Fault, ...]:
    """Return the faults by path, each once: cloud-init's schema checks some keys in several places."""
    from jsonschema.validators import validator_for

    validator = validator_for(schema)(schema)
    errors = [_deepest(error) for error in validator.iter_errors(data)]
    faults = [Fault(dotted(error.absolute_path), _in_words(error)) for error in errors]
    return tuple(sorted(dict.fromkeys(faults), key=lambda fault: (fault.path, fault.message)))


def _deepest(error: Any) -> Any:
    """Return the most telling error below an ``anyOf``: of the branch that fits best, not of those of another type."""
    while error.context:
        error = max(error.context, key=lambda item: (len(item.absolute_path), item.validator != "type"))
    return error


def _in_words(error: Any) -> str:
    value = shown(error.instance)
    match error.validator:
        case "additionalProperties" if isinstance(error.instance, dict):
            known = error.schema.get("properties", {})
            strange = [key for key in error.instance if key not in known and not _patterned(key, error.schema)]
            return "; ".join(f"unknown key {shown(key)}{nearest(str(key), known)}" for key in strange)
        case "required":
            missing = [key for key in error.validator_value if key not in error.instance]
            return f"lacks {', '.join(missing)}"
        case "type":
            wanted = error.validator_value
            return f"{value} is not {' or '.join(wanted if isinstance(wanted, list) else [wanted])}"
        case "enum":
            return f"{value} is not one of {_listed(error.validator_value)}"
        case "minItems":
            return "must not be empty"
        case _:
            return str(error.message)[:200]


def _patterned(key: str, schema: Mapping[str, Any]) -> bool:
    import re

    return any(re.search(pattern, key) for pattern in schema.get("patternProperties", {}))


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(json.dumps(value) for value in values)
