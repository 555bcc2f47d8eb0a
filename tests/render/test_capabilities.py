"""Capabilities of hosts: this machine's QEMU as captured in tests/render/captured, and hypervisors that say little."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmhost.model.errors import DamagedData
from vmhost.render.parse.capabilities import DomainCapabilities, parse_capabilities, parse_domain_capabilities

CAPTURED = Path(__file__).parent / "captured"


def test_the_host() -> None:
    facts = parse_capabilities((CAPTURED / "capabilities.xml").read_text())
    assert (facts.architecture, facts.cpus, facts.memory) == ("x86_64", 2, 8087756 << 10)
    assert "pc-q35-7.2" in facts.machines
    assert "q35" not in facts.machines


def test_what_a_guest_may_have() -> None:
    facts = parse_domain_capabilities((CAPTURED / "domain-capabilities.xml").read_text())
    assert (facts.type, facts.emulator, facts.uefi) == ("qemu", "/usr/bin/qemu-system-x86_64", True)
    assert facts.machines == ("pc-q35-7.2",)
    assert facts.cpu_modes == ("maximum", "host-model", "custom")
    assert facts.max_vcpus == 288


def test_the_test_driver_has_cells_and_no_domain_capabilities() -> None:
    facts = parse_capabilities((CAPTURED / "capabilities-test-driver.xml").read_text())
    assert (facts.architecture, facts.cpus, facts.memory) == ("i686", 16, 2 * 3145728 << 10)
    assert parse_domain_capabilities("") == DomainCapabilities()


def test_a_host_that_says_nothing() -> None:
    facts = parse_capabilities("<capabilities/>")
    assert (facts.architecture, facts.cpus, facts.memory, facts.machines) == ("", 0, 0, ())
    assert not parse_domain_capabilities("<domainCapabilities/>").uefi


@pytest.mark.parametrize("parse", [parse_capabilities, parse_domain_capabilities])
def test_no_xml(parse) -> None:
    with pytest.raises(DamagedData):
        parse("<capabilities>")
