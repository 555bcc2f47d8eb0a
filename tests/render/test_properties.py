"""What holds for every guest that a site can describe."""

from __future__ import annotations

import json

from hypothesis import given

from tests.render.cases import packaged
from tests.render.strategies import cases
from vmhost.drivers.schemas import domain_schema
from vmhost.render import amend
from vmhost.render.document import same
from vmhost.render.parse.domain import parse_domain
from vmhost.render.parse.metadata import parse_metadata
from vmhost.render.validate import validate_domain

PACKAGED = packaged()
SANDBOXED = packaged(sandboxed=True)


@given(case=cases())
def test_every_guest_is_valid_by_libvirts_own_schema(case) -> None:
    assert validate_domain(case.render(PACKAGED), domain_schema()) == ()


@given(case=cases())
def test_every_guest_is_read_back_as_it_was_written(case) -> None:
    xml = case.render(PACKAGED)
    facts, metadata, spec, identity = parse_domain(xml), parse_metadata(xml), case.spec, case.identity()
    assert (facts.name, facts.uuid, facts.firmware) == (spec.name, identity.uuid, spec.firmware)
    assert (facts.vcpus, facts.max_vcpus) == (spec.cpus.count, spec.cpus.max or spec.cpus.count)
    assert (facts.memory, facts.max_memory) == (spec.memory.size, spec.memory.max or spec.memory.size)
    assert facts.serial_log == case.context().serial_log
    paths = {f"ua-disk-{disk.id}": disk.path for disk in case.context().disks}
    assert {disk.alias: disk.source for disk in facts.disks} == paths | {"ua-seed": case.context().seed}
    nics = {f"ua-nic-{nic.id}": (nic.mac, nic.tap) for nic in identity.nics}
    assert {nic.alias: (nic.mac, nic.tap) for nic in facts.nics} == nics
    assert metadata is not None
    assert metadata.identity == identity
    # The spec may hold characters that XML cannot: they travel as JSON escapes, so JSON is what is kept.
    assert json.loads(metadata.spec) == json.loads(case.context().metadata.spec)


@given(case=cases())
def test_the_sandbox_changes_nothing(case) -> None:
    assert case.render(SANDBOXED) == case.render(PACKAGED)


@given(case=cases())
def test_amending_what_already_is_changes_nothing(case) -> None:
    xml, spec, metadata = case.render(PACKAGED), case.spec, case.context().metadata
    assert amend.normal(xml) == xml
    assert amend.with_name(xml, spec.name) == xml
    assert amend.with_memory(xml, spec.memory.size, spec.memory.max or spec.memory.size) == xml
    assert amend.with_vcpus(xml, spec.cpus.count, spec.cpus.max or spec.cpus.count) == xml
    assert same(amend.with_metadata(xml, metadata), xml)
    for disk in case.context().disks:
        assert amend.with_disk_added(xml, disk, PACKAGED) == xml
    for nic in case.identity().nics:
        assert same(amend.with_nic_changed(xml, nic, case.networks[nic.network], PACKAGED), xml)


@given(case=cases())
def test_what_is_taken_out_and_put_back_is_there_again(case) -> None:
    xml = case.render(PACKAGED)
    for disk in case.context().disks[1:]:
        without = amend.with_disk_removed(xml, disk.id)
        assert len(parse_domain(without).disks) == len(parse_domain(xml).disks) - 1
        again = amend.with_disk_added(without, disk, PACKAGED)
        assert set(parse_domain(again).disks) == set(parse_domain(xml).disks)
        assert validate_domain(again, domain_schema()) == ()
    for nic in case.identity().nics:
        without = amend.with_nic_removed(xml, nic.id)
        assert len(parse_domain(without).nics) == len(parse_domain(xml).nics) - 1
        again = amend.with_nic_added(without, nic, case.networks[nic.network], PACKAGED)
        assert set(parse_domain(again).nics) == set(parse_domain(xml).nics)
        assert validate_domain(again, domain_schema()) == ()
