"""libvirt's schema: found or missed with a clear word, and every fault with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.render.cases import GOLDEN
from vmhost.drivers.schemas import domain_schema
from vmhost.model.errors import Absent, DamagedData
from vmhost.render.validate import validate_domain


def golden() -> str:
    return (GOLDEN / "smallest.xml").read_text()


def test_a_fault_comes_with_its_line() -> None:
    xml = golden().replace('<panic model="isa"/>', '<panic model="isb"/>')
    faults = validate_domain(xml, domain_schema())
    assert faults
    assert all(fault.startswith("line ") for fault in faults)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<memory unit", "<memry unit"),
        ('dev="vda"', 'dev="<&quot;"'),
        ("<vcpu placement", "<brand-new/><vcpu placement"),
        ("3f2a91c4-6c1d-4a8e-9b57-0d1e2f3a4b5c</uuid>", "none</uuid>"),
    ],
)
def test_what_libvirt_would_refuse_is_found(old: str, new: str) -> None:
    xml = golden().replace(old, new)
    assert xml != golden()
    assert validate_domain(xml, domain_schema()) != ()


def test_no_xml_is_a_fault_like_any_other() -> None:
    assert "not well-formed" in validate_domain("<domain>", domain_schema())[0]


def test_a_schema_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(Absent) as caught:
        domain_schema(tmp_path / "domain.rng")
    assert caught.value.hint.startswith("apt-get install")


@pytest.mark.parametrize("text", ["", "<a/>", "<grammar xmlns='http://relaxng.org/ns/structure/1.0'/>"])
def test_a_file_that_is_no_schema(text: str, tmp_path: Path) -> None:
    path = tmp_path / "domain.rng"
    path.write_text(text)
    with pytest.raises(DamagedData, match="not a schema"):
        domain_schema(path)
