"""New definitions are checked with libvirt's schema while the plan is made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.render.cases import GOLDEN
from vmhost.drivers import schemas
from vmhost.model.errors import Absent, UsageError
from vmhost.model.observed import ObservedHost
from vmhost.model.plan import Change, Plan, Planned
from vmhost.model.steps import DefineDomain
from vmhost.ops import definitions
from vmhost.ops.definitions import check_definitions
from vmhost.ops.host import Host
from vmhost.testing.builders import guest, site
from vmhost.testing.demo import demo_host

HOST = ObservedHost("qemu:///system", "QEMU", "h", 9_000_000, 7_002_000, "x86_64", 2, 4 << 30, False, True, True)


def plan(old: str = "", new: str = "") -> Plan:
    xml = (GOLDEN / "smallest.xml").read_text()
    assert old in xml
    return Plan(
        "shop", (Planned(DefineDomain("u", "web-01", xml.replace(old, new)), None, Change.LIVE, "web-01", "w"),)
    )


def test_what_the_packaged_templates_make_passes() -> None:
    good = plan()
    assert check_definitions(good, HOST) is good


def test_what_libvirt_would_refuse_is_refused_before_anything_is_made() -> None:
    with pytest.raises(UsageError, match="libvirt's schema refuses the definition: line ") as caught:
        check_definitions(plan('<panic model="isa"', '<panic model="isb"'), HOST)
    assert caught.value.subject == "web-01"
    assert caught.value.hint


def test_another_machines_libvirt_is_not_judged_by_our_schema() -> None:
    bad = plan('<panic model="isa"', '<panic model="isb"')
    assert check_definitions(bad, replace(HOST, local=False)) is bad


def test_a_machine_without_the_schema_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = tmp_path / "domain.rng"
    with pytest.raises(Absent):
        schemas.domain_schema(missing)
    monkeypatch.setattr(definitions, "domain_schema", lambda: schemas.domain_schema(missing))
    (note,) = check_definitions(plan('<panic model="isa"', '<panic model="isb"'), HOST).notes
    assert note.subject == str(missing)
    assert "libvirt checks definitions only when it gets them (apt-get install" in note.text
    assert check_definitions(plan(), replace(HOST, uri="fake:demo")).notes == ()


def test_a_wrong_template_of_ones_own_stops_the_plan(tmp_path: Path) -> None:
    fake = demo_host()
    ports = replace(fake.ports, layout=replace(fake.ports.layout, config=tmp_path))
    part = tmp_path / "domain_templates" / "parts" / "rng.xml.j2"
    part.parent.mkdir(parents=True)
    part.write_text("    <rng model='virtio'><backend model='dice'>/dev/urandom</backend></rng>\n")
    before = fake.state()
    with pytest.raises(UsageError, match="libvirt's schema refuses the definition"):
        Host(ports=ports).plan(site(guest("new-01")))
    assert fake.state() == before
