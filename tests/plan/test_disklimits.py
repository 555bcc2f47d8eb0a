"""Limits of disks: what a plan sets, and what it goes back to."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from vmhost.model.disklimits import UNLIMITED, DiskLimits, SetDiskLimits
from vmhost.model.observed import ObservedDomain
from vmhost.model.spec import GuestSpec
from vmhost.ops.host import Host
from vmhost.ops.sites import parse_site
from vmhost.plan.disklimits import set_disk_limits
from vmhost.testing import FakeHost

SITE = """
apiVersion: vmhost/v1
name: s
guests: {slow: {image: debian-12, memory: 256M, disks: [{size: 4G%s}]}}
"""
ALIAS = '<alias name="ua-disk-root"/>'
IO = "<iotune><total_bytes_sec>%d</total_bytes_sec></iotune>"


def guest(limits: str) -> GuestSpec:
    (found,) = parse_site(SITE % limits).guests
    return found


def running(limits: str, now: int) -> ObservedDomain:
    """A guest defined with these limits whose disk has others while it runs, as somebody set them by hand."""
    made = FakeHost()
    made.add_image("debian-12")
    host = Host(ports=made.ports)
    host.apply(host.plan(parse_site(SITE % limits)))
    domain = host.observe().domain("slow")
    assert domain is not None
    clean = re.sub("<iotune>.*?</iotune>", "", domain.raw.xml, flags=re.DOTALL)
    before, found, after = clean.partition(ALIAS)
    assert found, clean
    return replace(domain, raw=replace(domain.raw, live_xml=before + found + IO % now + after))


@pytest.mark.parametrize(("defined", "then"), [("", UNLIMITED), (", limits: {rate: 1M}", DiskLimits(1 << 20))])
def test_what_was_set_while_it_runs_does_not_come_into_the_definition_by_an_undo(
    defined: str, then: DiskLimits
) -> None:
    (step,) = set_disk_limits(guest(", limits: {rate: 1M}"), running(defined, 5 << 20))
    assert isinstance(step.do, SetDiskLimits)
    assert step.do.limits == DiskLimits(1 << 20)
    assert isinstance(step.undo, SetDiskLimits)
    assert step.undo.limits == then
