"""Domain XML as it was agreed: a change shows as a difference of a golden file."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from tests.render.cases import CASES, GOLDEN, NETWORKS, Case
from vmhost.drivers.schemas import domain_schema
from vmhost.model.spec import CpuSpec, DiskSpec, GuestSpec, MemorySpec, NetworkSpec, NicSpec
from vmhost.render import amend
from vmhost.render.parse.domain import parse_domain
from vmhost.render.parse.metadata import parse_metadata
from vmhost.render.validate import validate_domain

# Which field shows where. A new field of a model belongs into one of the two tables, or the last test fails.
SHOWN: dict[type[BaseModel], tuple[str, ...]] = {
    GuestSpec: ("name", "image", "cpus", "memory", "firmware", "disks", "nics"),
    CpuSpec: ("count", "max"),
    MemorySpec: ("size", "max"),
    DiskSpec: ("id", "limits"),
    NicSpec: ("network", "id", "mac", "bandwidth"),
    NetworkSpec: ("type", "bridge", "mtu"),
}
ELSEWHERE: dict[type[BaseModel], dict[str, str]] = {
    GuestSpec: {
        "cloud_init": "the seed",
        "state": "a step",
        "autostart": "a step",
        "protect": "the metadata",
        "labels": "the metadata",
        "ready": "a step",
        "backup": "the metadata",
        "heartbeat": "the watch",
    },
    CpuSpec: dict.fromkeys(
        (
            "policy",
            "dedicated",
            "threads",
            "pins",
            "emulator",
            "iothreads",
            "topology",
            "request",
            "limit",
            "vcpu_limit",
            "emulator_limit",
            "shares",
        ),
        "the tuning, which a plan makes of it",
    ),
    MemorySpec: dict.fromkeys(
        ("limit", "swap_limit", "hugepages", "cells", "numa", "locked"), "the tuning, which a plan makes of it"
    ),
    DiskSpec: {"size": "the volume", "pool": "the volume, and so the path"},
    NicSpec: {
        "address": "the seed and the metadata",
        "tagged": "the hook",
        "isolated": "the hook",
        "spoofing": "the hook",
    },
    NetworkSpec: {
        "vlan": "the hook",
        "range": "a plan",
        "reserved": "a plan",
        "isolated": "the hook",
        "spoofing": "the hook",
        "bandwidth": "the NIC's own limits",
        "subnet": "a plan",
        "gateway": "the seed",
        "address": "the host's own link",
        "routes": "the host's own link",
        "dns": "the seed",
        "search": "the seed",
        "pool": "a plan",
        "reach": "the way to the guest",
        "reach_address": "the way to the guest",
        "jump": "the way to the guest",
    },
}


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    assert CASES[name].render() == (GOLDEN / f"{name}.xml").read_text()


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.glob("*.xml")} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_golden_is_valid_by_libvirts_own_schema(name: str) -> None:
    assert validate_domain((GOLDEN / f"{name}.xml").read_text(), domain_schema()) == ()


@pytest.mark.parametrize("name", CASES)
def test_what_was_rendered_is_read_back(name: str) -> None:
    case = CASES[name]
    xml = case.render()
    facts, metadata, spec = parse_domain(xml), parse_metadata(xml), case.spec
    assert metadata == case.context().metadata
    assert (facts.name, facts.firmware, facts.vcpus, facts.memory) == (
        spec.name,
        spec.firmware,
        spec.cpus.count,
        spec.memory.size,
    )
    assert facts.max_vcpus == (spec.cpus.max or spec.cpus.count)
    assert facts.max_memory == (spec.memory.max or spec.memory.size)
    assert [disk.alias for disk in facts.disks] == [f"ua-disk-{disk.id}" for disk in spec.disks] + ["ua-seed"]
    assert {nic.alias: nic.mac for nic in facts.nics} == {f"ua-nic-{nic.id}": nic.mac for nic in metadata.identity.nics}
    assert {nic.alias: nic.tap for nic in facts.nics} == {f"ua-nic-{nic.id}": nic.tap for nic in metadata.identity.nics}
    assert amend.normal(xml) == xml


@pytest.mark.parametrize("model", SHOWN)
def test_every_field_is_accounted_for(model: type[BaseModel]) -> None:
    assert set(SHOWN[model]) | set(ELSEWHERE[model]) == set(model.model_fields)
    assert not set(SHOWN[model]) & set(ELSEWHERE[model])


@pytest.mark.parametrize(("model", "field"), [(model, field) for model, fields in SHOWN.items() for field in fields])
def test_every_field_that_shows_has_golden_cases_that_differ_in_it(model: type[BaseModel], field: str) -> None:
    seen = {repr(getattr(value, field)) for case in CASES.values() for value in _all(case, model)}
    assert len(seen) > 1, f"no golden case exercises {model.__name__}.{field}"


def _all(case: Case, model: type[BaseModel]) -> list[Any]:
    """Return every value of a model that occurs in a case."""
    used = [NETWORKS[nic.network] for nic in case.spec.nics]
    spec = case.spec
    return {
        GuestSpec: [spec],
        CpuSpec: [spec.cpus],
        MemorySpec: [spec.memory],
        DiskSpec: list(spec.disks),
        NicSpec: list(spec.nics),
        NetworkSpec: used,
    }[model]
