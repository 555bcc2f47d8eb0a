"""cloud-init's schemas, and a person's own user-data: read, told apart and checked before anything is created."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from io import StringIO
from typing import Any

from vmhost.model.errors import Fault, SpecError
from vmhost.model.plan import Plan
from vmhost.model.spec.cloudinit import USER_DATA_LIMIT
from vmhost.model.steps import CreateSeed
from vmhost.model.units import format_size, shown
from vmhost.ops.yamlfile import MOST_NODES
from vmhost.render.cloudconfig import (
    CLOUD_CONFIG,
    FORMATS,
    format_of,
    own_user_data_faults,
    validate_network_config,
    validate_user_data,
)


@cache
def cloud_config_schema() -> dict[str, Any]:
    """Return cloud-init's own JSON schema of a cloud-config."""
    return _schema("schema-cloud-config-v1.json")


@cache
def network_config_schema() -> dict[str, Any]:
    """Return cloud-init's own JSON schema of a network-config, version 2."""
    return _schema("schema-network-config-v2.json")


def _schema(name: str) -> dict[str, Any]:
    text = (files("vmhost.data") / "cloud-init-schema" / name).read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def check_seeds(plan: Plan) -> None:
    """Return when cloud-init's own schemas find nothing wrong with the new seeds of a plan.

    :raises SpecError: with every fault; the subject is the guest. What the packaged templates make is valid, so a
        template of one's own is to blame.
    """
    for item in plan.steps:
        if isinstance(item.do, CreateSeed):
            faults = [
                *(_named("user-data", fault) for fault in validate_user_data(item.do.user_data, cloud_config_schema())),
                *(
                    _named("network-config", fault)
                    for fault in validate_network_config(item.do.network_config, network_config_schema())
                ),
            ]
            if faults:
                raise SpecError(faults, subject=item.subject, hint="ls /etc/vmhost/cloud-init")


def _named(document: str, fault: Fault) -> Fault:
    return Fault(f"{document}.{fault.path}" if fault.path else document, fault.message)


def check_user_data(text: str) -> tuple[Fault, ...]:
    """Return what is wrong with user-data of one's own.

    A ``#cloud-config`` is read as cloud-init reads it (YAML 1.1) and checked with its schema; of the other formats only
    the first line can be checked.
    """
    if len(text.encode()) > USER_DATA_LIMIT:
        return (Fault("", f"is larger than {format_size(USER_DATA_LIMIT)}"),)
    known = format_of(text)
    if not known:
        first = text.strip().partition("\n")[0]
        return (
            Fault("", f"cloud-init would ignore it: its first line {shown(first)} is none of {', '.join(FORMATS)}"),
        )
    if known != CLOUD_CONFIG:
        return ()
    return _check_cloud_config(text)


def _check_cloud_config(text: str) -> tuple[Fault, ...]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    yaml = YAML(typ="safe", pure=True)
    yaml.version = (1, 1)
    try:
        if _expanded_size(yaml.compose(StringIO(text))) > MOST_NODES:
            return (Fault("", f"more than {MOST_NODES:,} values once its aliases are followed"),)
        config = yaml.load(StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = str(error.problem or error.context).partition("\n")[0]
        return (Fault("", f"this is not YAML: {problem}", mark.line + 1 if mark else 0),)
    except (YAMLError, ValueError, RecursionError) as error:
        return (Fault("", f"this is not YAML: {shown(str(error))}"),)
    return own_user_data_faults(_plain(config), cloud_config_schema())


def _expanded_size(root: Any) -> int:
    """Return how many values a document has when every alias is followed; sizes are added up once for each anchor."""
    sizes: dict[int, int] = {}

    def size(node: Any) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = MOST_NODES + 1  # met again while it is open: it contains itself
            below = node.value if isinstance(getattr(node, "value", None), list) else []
            parts = (part for item in below for part in (item if isinstance(item, tuple) else (item,)))
            sizes[id(node)] = 1 + sum(size(part) for part in parts)
        return sizes[id(node)]

    return size(root) if root is not None else 0


def _plain(value: Any) -> Any:
    """Return data with text keys and without YAML's own types (dates), as JSON schemas know it."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)
