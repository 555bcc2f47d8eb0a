"""I/O threads of guests that run: always where the rest of QEMU is, however many their definition says."""

from __future__ import annotations

import pytest
from lxml import etree

from tests.placer.test_captured import host_of
from vmhost.model.permit import Permit
from vmhost.ops.host import Host
from vmhost.ops.sites import parse_site
from vmhost.render.document import same
from vmhost.render.parse.tuning import iothread_ids, parse_tuning

HEAD = "{apiVersion: vmhost/v1, name: s, defaults: {image: debian-12, memory: 64M, disks: [{size: 4G}]}, guests: {%s}}"
QUIET = "quiet: {cpus: {count: 2, policy: dedicated}}"
MANY = "many: {cpus: {count: 1, iothreads: 4}}"
BY_HAND = "<iothreads>2</iothreads><iothreadids><iothread id='3'/><iothread id='5'/></iothreadids>"


def apply(host: Host, *guests: str) -> str:
    proposal = host.plan(parse_site(HEAD % ", ".join(guests)))
    told = str(proposal.plan)
    host.apply(proposal)
    return told


def raw(host: Host, name: str) -> tuple[str, str]:
    found = next(raw for raw in host.ports.hypervisor.domains() if raw.name == name)
    return found.xml, found.live_xml


def held(host: Host, name: str) -> dict[int, frozenset[int]]:
    uuid = next(raw.uuid for raw in host.ports.hypervisor.domains() if raw.name == name)
    return dict(host.ports.kernel.held()[uuid].iothreads)


def by_hand(host: Host) -> None:
    """Give guest many the threads 3 and 5, and its disk to the second one, as virsh edit and a restart would."""
    apply(host, "many: {cpus: 1}")
    found = next(raw for raw in host.ports.hypervisor.domains() if raw.name == "many")
    root = etree.fromstring(found.xml)
    root.extend(etree.fromstring(f"<some>{BY_HAND}</some>"))
    driver = root.find("devices/disk/driver")
    assert driver is not None
    driver.set("iothread", "5")
    host.ports.hypervisor.define(etree.tostring(root, encoding="unicode"))
    host.ports.hypervisor.power_off(found.uuid)
    host.ports.hypervisor.start(found.uuid)


@pytest.mark.parametrize("wanted", ["iothreads: 2", ""])
def test_those_that_only_its_next_boot_takes_away_stay_off_the_pcpus_of_others(wanted: str) -> None:
    host = host_of("two-sockets")
    apply(host, MANY, QUIET)
    fewer = f"many: {{cpus: {{count: 1, {wanted}}}}}"
    apply(host, fewer, QUIET)
    xml, live = raw(host, "many")
    assert (len(iothread_ids(xml)), len(iothread_ids(live))) == (2 if wanted else 0, 4)
    own = {int(cpu) for _, cpu in parse_tuning(raw(host, "quiet")[0]).pins}
    assert len(held(host, "many")) == 4
    assert not any(cpus & own for cpus in held(host, "many").values())

    # and they go out of the way of one more, whom only a plan for others lets in
    one_more = parse_site((HEAD % "loud: {cpus: {count: 2, policy: dedicated}}").replace("name: s", "name: t"))
    host.apply(host.plan(one_more))
    own |= {int(cpu) for _, cpu in parse_tuning(raw(host, "loud")[0]).pins}
    assert len(own) == 4
    assert not any(cpus & own for cpus in held(host, "many").values())
    assert [one.field for one in host.drift(parse_site(HEAD % f"{fewer}, {QUIET}"))] == []


def test_those_that_somebody_gave_it_are_no_drift_and_only_where_they_run_changes() -> None:
    host = host_of("two-sockets")
    by_hand(host)
    before = raw(host, "many")[0]
    assert host.drift(parse_site(HEAD % "many: {cpus: 1}")) == ()
    apply(host, "many: {cpus: 1}", QUIET)
    xml, live = raw(host, "many")
    own = {int(cpu) for _, cpu in parse_tuning(raw(host, "quiet")[0]).pins}
    assert [thread for thread, _ in parse_tuning(xml).io] == [thread for thread, _ in parse_tuning(live).io] == [3, 5]
    assert sorted(held(host, "many")) == [3, 5]
    assert not any(cpus & own for cpus in held(host, "many").values())
    assert xml.count('iothread="5"') == 2, "its disk stays with the thread that it was given"
    host.apply(host.plan_delete(["quiet"], Permit(stop=True, power_off=True, disks=True)))
    assert same(raw(host, "many")[0], before)


def test_a_number_that_the_site_says_takes_their_place() -> None:
    host = host_of("two-sockets")
    by_hand(host)
    told = apply(host, "many: {cpus: {count: 1, iothreads: 1}}")
    assert "cpus.iothreads 2 -> 1" in told
    assert iothread_ids(raw(host, "many")[0]) == (1,)
    assert "cpus.iothreads 1 -> none" in apply(host, "many: {cpus: 1}")
    assert "iothread" not in raw(host, "many")[0]
