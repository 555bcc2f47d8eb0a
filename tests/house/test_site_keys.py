"""docs/manual/site-keys.md holds every key of a site file, with its true default and a valid example."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from ruamel.yaml import YAML

from vmhost.model import spec
from vmhost.model.units import parse_duration

SECRETS = (spec.FileRef, spec.EnvRef, spec.CommandRef, spec.CredentialRef)
SECTIONS: Mapping[str, tuple[type[BaseModel], ...]] = {
    "The file": (spec.SiteInput,),
    "host": (spec.HostSpec,),
    "host.thresholds": (spec.ThresholdSpec,),
    "bridges.NAME": (spec.BridgeSpec,),
    "networks.NAME": (spec.NetworkSpec,),
    "networks.NAME.routes[]": (spec.RouteSpec,),
    "networks.NAME.jump": (spec.JumpSpec,),
    "guests.NAME": (spec.GuestInput,),
    "guests.NAME.cpus": (spec.CpuSpec,),
    "guests.NAME.memory": (spec.MemoryInput,),
    "guests.NAME.disks[]": (spec.DiskSpec,),
    "guests.NAME.disks[].limits": (spec.DiskLimitsSpec,),
    "guests.NAME.nics[]": (spec.NicSpec,),
    "guests.NAME.nics[].bandwidth": (spec.BandwidthSpec,),
    "guests.NAME.ready": (spec.ReadySpec,),
    "guests.NAME.backup": (spec.BackupSpec,),
    "guests.NAME.backup.drill": (spec.DrillSpec,),
    "guests.NAME.backup.schedule": (spec.ScheduleSpec,),
    "guests.NAME.backup.keep": (spec.KeepSpec,),
    "guests.NAME.heartbeat": (spec.HeartbeatSpec,),
    "guests.NAME.cloud_init": (spec.CloudInitSpec,),
    "guests.NAME.cloud_init.users[]": (spec.UserSpec,),
    "guests.NAME.cloud_init.files[]": (spec.FileSpec,),
    "guests.NAME.cloud_init.user_data": (spec.UserDataSpec,),
    "services.NAME": (spec.ServiceSpec,),
    "services.NAME.unit": (spec.UnitSpec,),
    "services.NAME.files[]": (spec.ServiceFileSpec,),
    "services.NAME.directories[]": (spec.DirectorySpec,),
    "services.NAME.users[]": (spec.ServiceUserSpec,),
    "services.NAME.probes.NAME": (spec.ProbeSpec,),
    "services.NAME.probes.NAME.tcp": (spec.TcpSpec,),
    "services.NAME.probes.NAME.http": (spec.HttpSpec,),
    "services.NAME.restart": (spec.RestartSpec,),
    "services.NAME.hooks": (spec.HooksSpec,),
    "Secrets": SECRETS,
}
# These leave absent keys open, so that they are inherited; what follows from that stands in the complete model.
COMPLETE: Mapping[str, type[BaseModel]] = {"guests.NAME": spec.GuestSpec, "guests.NAME.memory": spec.MemorySpec}


def _rows(page: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the heading and the cells of every row of a table of keys."""
    heading = ""
    for line in page.splitlines():
        if line.startswith("## "):
            heading = line[3:]
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        if heading and re.fullmatch(r"`\w+`", cells[0]):
            yield heading, cells


def _faults(page: str) -> list[str]:
    rows = list(_rows(page))
    faults = []
    for heading, models in SECTIONS.items():
        there = {cells[0].strip("`") for found, cells in rows if found == heading}
        wanted = {name for model in models for name in model.model_fields}
        faults += [f"{heading}: {name} is missing" for name in sorted(wanted - there)]
        faults += [f"{heading}: {name} is no key" for name in sorted(there - wanted)]
    for heading, cells in rows:
        faults += [f"{heading}: {cells[0]}: {fault}" for fault in _row_faults(heading, cells)]
    return faults


def _row_faults(heading: str, cells: list[str]) -> Iterator[str]:
    if len(cells) != 5 or not all(cells):
        yield f"{len(cells)} cells, or an empty one"
        return
    name = cells[0].strip("`")
    fields = [model.model_fields[name] for model in SECTIONS.get(heading, ()) if name in model.model_fields]
    if not fields:
        return
    (field,) = fields
    example = YAML(typ="safe").load(cells[4].strip("`"))
    try:
        TypeAdapter(field.rebuild_annotation()).validate_python(example)
    except ValidationError as error:
        yield f"the example is not valid: {error.errors()[0]['msg']}"
    if not _default_is_true(heading, name, field, cells[2]):
        yield f"the default is not {cells[2]}"


def _default_is_true(heading: str, name: str, field: FieldInfo, written: str) -> bool:
    if heading in COMPLETE:
        fields = COMPLETE[heading].model_fields
        if name not in fields:
            return written.startswith("none")
        if name == "cpus":  # required there, since every count is written out
            return written == "`{}`"
        field = fields[name]
    if field.is_required():
        return written == "required"
    default = field.get_default()
    assert default is not PydanticUndefined
    in_words = re.fullmatch(r"`[^`]*`", written) is None
    if default is None:
        return in_words or written == "`host.pool`"
    return written in _spelled(default) or any(written.startswith(f"{text} where") for text in _spelled(default))


def _spelled(default: Any) -> set[str]:
    if isinstance(default, BaseModel) or default == {}:
        return {"`{}`"}
    if isinstance(default, bool):
        return {f"`{str(default).lower()}`"}
    if isinstance(default, float):
        return {
            f"`{text}`"
            for text in ("5s", "10s", "30s", "1m", "90s", "5m", "10m", "30m", "1h")
            if parse_duration(text) == default
        }
    return {"`[]`"} if default == () else {f"`{default}`"}


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs" / "manual" / "site-keys.md").read_text(encoding="utf-8")


def test_every_key_is_there_with_its_default_and_an_example(page: str) -> None:
    assert _faults(page) == []


def test_every_model_of_the_schema_has_its_section() -> None:
    named = {model.__name__ for models in SECTIONS.values() for model in models}
    assert set(spec.SiteInput.model_json_schema()["$defs"]) <= named


def test_a_missing_key_a_wrong_default_and_a_bad_example_are_found(page: str) -> None:
    bad = re.sub(r"(?m)^\| `protect` .*\n", "", page)
    bad = (
        bad.replace("| `1500` |", "| `1400` |").replace("| `10m` |", "| `5m` |", 1).replace("| `uefi` |", "| `uefy` |")
    )
    bad = bad.replace("| `pool` | what `address: auto`", "| `pond` | what `address: auto`")
    assert [fault.partition(": the example is not valid")[0] for fault in _faults(bad)] == [
        "networks.NAME: pool is missing",
        "networks.NAME: pond is no key",
        "guests.NAME: protect is missing",
        "bridges.NAME: `mtu`: the default is not `1400`",
        "guests.NAME: `firmware`",
        "guests.NAME.ready: `timeout`: the default is not `5m`",
    ]
