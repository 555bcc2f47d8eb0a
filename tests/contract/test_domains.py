"""Domains: definitions, states, metadata."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4
from xml.etree.ElementTree import fromstring

import pytest

from tests.contract.backends import Backend, eventually, metadata_xml
from vmhost.model.errors import Absent, AlreadyThere, DriverError
from vmhost.model.identity import NAMESPACE
from vmhost.model.observed import DomainState
from vmhost.render.parse.domain import parse_domain

FOREIGN = "<tool:note xmlns:tool='https://example.com/tool'>keep me</tool:note>"
DISK_IMAGE = 1 << 20


def site_of(xml: str) -> str | None:
    return fromstring(xml).findtext(f"metadata/{{{NAMESPACE}}}guest/{{{NAMESPACE}}}site")


def test_a_defined_domain_is_there_and_off(backend: Backend) -> None:
    domain = backend.defined()
    assert (domain.state, domain.live_xml) == (DomainState.SHUTOFF, "")
    assert (domain.persistent, domain.autostart, domain.managed_save, domain.snapshots) == (True, False, False, 0)
    root = fromstring(domain.xml)
    assert (root.findtext("name"), root.findtext("uuid")) == (domain.name, domain.uuid)
    assert domain in backend.hypervisor.domains()


def test_defining_again_changes_the_one_domain(backend: Backend) -> None:
    domain = backend.defined()
    backend.hypervisor.define(backend.domain_xml(domain.name, domain.uuid, memory=48))
    found = [raw for raw in backend.hypervisor.domains() if raw.uuid == domain.uuid]
    assert len(found) == 1
    memory = fromstring(found[0].xml).find("memory")
    assert memory is not None
    assert (memory.text, memory.get("unit")) == (str(48 * 1024), "KiB")


@pytest.mark.parametrize("same", ["name", "uuid"])
def test_a_domain_that_is_there_first_wins(backend: Backend, same: str) -> None:
    first = backend.defined(metadata=FOREIGN)
    uuid = first.uuid if same == "uuid" else backend.new_uuid()
    name = first.name if same == "name" else f"other-{uuid4().hex[:8]}"
    with pytest.raises(AlreadyThere) as caught:
        backend.hypervisor.define(backend.domain_xml(name, uuid))
    assert caught.value.hint
    assert backend.hypervisor.domain(first.uuid) == first
    assert name == first.name or name not in {raw.name for raw in backend.hypervisor.domains()}


@pytest.mark.parametrize("name", [".", ".."])
def test_names_that_harm_other_guests_are_refused(backend: Backend, name: str) -> None:
    first = backend.defined()
    with pytest.raises(DriverError):
        backend.hypervisor.define(backend.domain_xml(name, backend.new_uuid()))
    assert backend.hypervisor.domain(first.uuid) == first


@pytest.mark.parametrize("xml", ["", "<domain>", "not XML", "<network><name>x</name></network>"])
def test_what_is_no_domain_is_refused(backend: Backend, xml: str) -> None:
    before = backend.hypervisor.domains()
    with pytest.raises(DriverError):
        backend.hypervisor.define(xml)
    assert backend.hypervisor.domains() == before


def test_elements_that_the_schema_does_not_know_are_refused(backend: Backend) -> None:
    uuid = backend.new_uuid()
    xml = backend.domain_xml(f"guest-{uuid[:8]}", uuid).replace("<features>", "<vcpuz>1</vcpuz><features>")
    with pytest.raises(DriverError):
        backend.hypervisor.define(xml)
    with pytest.raises(Absent):
        backend.hypervisor.domain(uuid)


def test_what_is_not_there_is_absent(backend: Backend) -> None:
    hypervisor, uuid = backend.hypervisor, str(uuid4())
    calls = [
        lambda: hypervisor.domain(uuid),
        lambda: hypervisor.start(uuid),
        lambda: hypervisor.shut_down(uuid),
        lambda: hypervisor.power_off(uuid),
        lambda: hypervisor.undefine(uuid),
        lambda: hypervisor.set_autostart(uuid, True),
        lambda: hypervisor.set_metadata(uuid, metadata_xml("shop")),
        lambda: hypervisor.discard_managed_save(uuid),
        lambda: hypervisor.resize_disk(uuid, "vda", DISK_IMAGE),
        lambda: hypervisor.agent(uuid, '{"execute":"guest-ping"}', 1.0),
    ]
    for call in calls:
        with pytest.raises(Absent) as caught:
            call()
        assert caught.value.subject
        assert caught.value.hint


def test_what_does_not_run_is_absent_for_calls_to_running_ones(backend: Backend) -> None:
    hypervisor, uuid = backend.hypervisor, backend.defined().uuid
    for call in (
        lambda: hypervisor.shut_down(uuid),
        lambda: hypervisor.power_off(uuid),
        lambda: hypervisor.resize_disk(uuid, "vda", DISK_IMAGE),
        lambda: hypervisor.agent(uuid, '{"execute":"guest-ping"}', 1.0),
    ):
        with pytest.raises(Absent):
            call()


def test_a_domain_is_found_by_its_name_and_then_by_its_uuid(backend: Backend) -> None:
    hypervisor = backend.hypervisor
    raw = backend.defined("sought")
    for name in (raw.name, raw.uuid, raw.uuid.upper()):
        assert [one.uuid for one in hypervisor.named(name)] == [raw.uuid]
        assert hypervisor.uuid_of(name) == raw.uuid
    for name in ("no-such-guest", "", "a b", "\udcff", "a\0b", "0" * 4096, "00000000-0000-0000-0000-000000000000"):
        assert hypervisor.named(name) == ()
        assert hypervisor.uuid_of(name) == ""


def test_what_runs_has_a_live_xml(backend: Backend) -> None:
    uuid = backend.defined("living").uuid
    assert backend.hypervisor.live_xml(uuid) == ""
    backend.hypervisor.start(uuid)
    assert backend.hypervisor.live_xml(uuid) == backend.hypervisor.domain(uuid).live_xml != ""
    backend.hypervisor.power_off(uuid)
    assert backend.hypervisor.live_xml(uuid) == ""


def test_start_and_power_off(backend: Backend) -> None:
    hypervisor, domain = backend.hypervisor, backend.defined()
    hypervisor.start(domain.uuid)
    running = hypervisor.domain(domain.uuid)
    assert running.state is DomainState.RUNNING
    assert fromstring(running.live_xml).get("id")
    assert running.xml == domain.xml
    assert running in hypervisor.domains()
    with pytest.raises(AlreadyThere):
        hypervisor.start(domain.uuid)
    hypervisor.power_off(domain.uuid)
    assert hypervisor.domain(domain.uuid) == domain


def test_shut_down_asks_and_leaves_the_rest_to_the_guest(backend: Backend) -> None:
    hypervisor, uuid = backend.hypervisor, backend.defined().uuid
    hypervisor.start(uuid)
    hypervisor.shut_down(uuid)
    if backend.lacks("guests that decide"):
        assert eventually(lambda: hypervisor.domain(uuid).state is DomainState.SHUTOFF)
    else:
        # Its firmware found nothing to boot, so nobody listens to the power button, and nobody takes the power away.
        assert not eventually(lambda: not hypervisor.domain(uuid).state.active, seconds=1.0)


def test_undefine_leaves_nothing(backend: Backend) -> None:
    hypervisor, uuid = backend.hypervisor, backend.defined().uuid
    hypervisor.undefine(uuid)
    assert uuid not in {raw.uuid for raw in hypervisor.domains()}
    with pytest.raises(Absent):
        hypervisor.undefine(uuid)


def test_undefine_of_a_running_domain_lets_it_run(backend: Backend) -> None:
    hypervisor, uuid = backend.hypervisor, backend.defined().uuid
    hypervisor.start(uuid)
    hypervisor.undefine(uuid)
    running = hypervisor.domain(uuid)
    assert (running.state, running.persistent) == (DomainState.RUNNING, False)
    hypervisor.set_metadata(uuid, metadata_xml("shop"))
    assert site_of(hypervisor.domain(uuid).live_xml) == "shop"
    hypervisor.power_off(uuid)
    with pytest.raises(Absent):
        hypervisor.domain(uuid)


def test_autostart(backend: Backend) -> None:
    hypervisor, uuid = backend.hypervisor, backend.defined().uuid
    for on in (True, True, False):
        hypervisor.set_autostart(uuid, on)
        assert hypervisor.domain(uuid).autostart is on
        assert {raw.uuid: raw.autostart for raw in hypervisor.domains()}[uuid] is on


@pytest.mark.parametrize("prefix", [True, False], ids=["prefix", "default-namespace"])
def test_metadata_of_a_domain_that_is_off(backend: Backend, prefix: bool) -> None:
    hypervisor, uuid = backend.hypervisor, backend.defined(metadata=FOREIGN).uuid
    for site in ("one", "two"):
        hypervisor.set_metadata(uuid, metadata_xml(site, prefix=prefix))
        xml = hypervisor.domain(uuid).xml
        assert site_of(xml) == site
        assert len(fromstring(xml).findall(f"metadata/{{{NAMESPACE}}}guest")) == 1
        assert "keep me" in xml


def test_metadata_reaches_the_definition_and_the_running_domain(backend: Backend) -> None:
    hypervisor = backend.hypervisor
    uuid = backend.defined(metadata=FOREIGN + metadata_xml("before")).uuid
    hypervisor.start(uuid)
    hypervisor.set_metadata(uuid, metadata_xml("after"))
    domain = hypervisor.domain(uuid)
    assert [site_of(domain.xml), site_of(domain.live_xml)] == ["after", "after"]
    assert "keep me" in domain.live_xml
    hypervisor.power_off(uuid)
    assert site_of(hypervisor.domain(uuid).xml) == "after"


def test_metadata_keeps_every_character(backend: Backend) -> None:
    hypervisor, uuid = backend.hypervisor, backend.defined().uuid
    text = "<&>\"' \u00fc \u2028 ]]> {{x}} $(y) \\n"
    quoted = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    hypervisor.set_metadata(uuid, metadata_xml(quoted))
    assert site_of(hypervisor.domain(uuid).xml) == text


def test_managed_save_is_seen_and_discarded(backend: Backend) -> None:
    hypervisor, uuid = backend.hypervisor, backend.defined().uuid
    with pytest.raises(Absent):
        hypervisor.discard_managed_save(uuid)
    hypervisor.start(uuid)
    backend.save(uuid)
    saved = hypervisor.domain(uuid)
    assert (saved.state, saved.managed_save) == (DomainState.SHUTOFF, True)
    assert saved in hypervisor.domains()
    hypervisor.set_metadata(uuid, metadata_xml("shop"))
    hypervisor.discard_managed_save(uuid)
    assert not hypervisor.domain(uuid).managed_save
    with pytest.raises(Absent):
        hypervisor.discard_managed_save(uuid)


def test_undefine_takes_a_managed_save_along(backend: Backend) -> None:
    hypervisor, domain = backend.hypervisor, backend.defined()
    hypervisor.start(domain.uuid)
    backend.save(domain.uuid)
    hypervisor.undefine(domain.uuid)
    hypervisor.define(backend.domain_xml(domain.name, domain.uuid))
    assert not hypervisor.domain(domain.uuid).managed_save


def test_other_domains_stay_as_they_are(backend: Backend) -> None:
    hypervisor = backend.hypervisor
    foreign = [backend.defined("foreign", metadata=FOREIGN) for _ in range(2)]
    hypervisor.start(foreign[1].uuid)
    before = [hypervisor.domain(raw.uuid) for raw in foreign]
    ours = backend.defined(metadata=metadata_xml("shop")).uuid
    hypervisor.start(ours)
    hypervisor.set_autostart(ours, True)
    hypervisor.set_metadata(ours, metadata_xml("other"))
    hypervisor.power_off(ours)
    hypervisor.undefine(ours)
    assert [hypervisor.domain(raw.uuid) for raw in foreign] == before


def test_an_agent_that_is_not_there_is_said(backend: Backend) -> None:
    hypervisor, uuid = backend.hypervisor, backend.defined().uuid
    hypervisor.start(uuid)
    with pytest.raises(DriverError) as caught:
        hypervisor.agent(uuid, '{"execute":"guest-ping"}', 1.0)
    assert not isinstance(caught.value, Absent)


def test_several_threads_use_it_at_once(backend: Backend) -> None:
    hypervisor = backend.hypervisor
    uuids = [backend.new_uuid() for _ in range(12)]

    def work(uuid: str) -> bool:
        hypervisor.define(backend.domain_xml(f"guest-{uuid[:8]}", uuid))
        hypervisor.set_metadata(uuid, metadata_xml(uuid))
        hypervisor.set_autostart(uuid, True)
        hypervisor.domains()
        hypervisor.set_autostart(uuid, False)
        return site_of(hypervisor.domain(uuid).xml) == uuid

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, uuids))
    assert set(uuids) <= {raw.uuid for raw in hypervisor.domains()}


def test_a_nic_is_plugged_into_what_runs_only(backend: Backend) -> None:
    mac = "52:54:00:12:34:56"
    xml = f"<interface type='user'><mac address='{mac}'/><model type='virtio'/><link state='down'/></interface>"
    domain, hypervisor = backend.defined(), backend.hypervisor
    with pytest.raises(Absent):
        hypervisor.plug_nic(domain.uuid, xml)
    hypervisor.start(domain.uuid)
    with backend.can("plug_nic") as able:
        hypervisor.plug_nic(domain.uuid, xml)
    if not able:
        return
    assert _link(hypervisor.domain(domain.uuid).live_xml, mac) == "down"
    assert mac not in hypervisor.domain(domain.uuid).xml
    with pytest.raises(AlreadyThere):
        hypervisor.plug_nic(domain.uuid, xml)
    hypervisor.set_nic_link(domain.uuid, mac, up=True)
    assert _link(hypervisor.domain(domain.uuid).live_xml, mac) == "up"
    for call in (
        lambda other: hypervisor.set_nic_link(domain.uuid, other, up=True),
        lambda other: hypervisor.unplug_nic(domain.uuid, other, timeout=0.1),
    ):
        with pytest.raises(Absent) as caught:
            call("52:54:00:00:00:99")
        assert (caught.value.subject, bool(caught.value.hint)) == (domain.name, True)


def _link(live_xml: str, mac: str) -> str:
    """The state of a NIC's link; one that says nothing is up."""
    for nic in fromstring(live_xml).iterfind("devices/interface"):
        found = nic.find("mac")
        if found is not None and found.get("address") == mac:
            link = nic.find("link")
            return "up" if link is None else str(link.get("state"))
    raise AssertionError(f"there is no NIC {mac}")


LIMITED = """
<interface type='ethernet'>
  <mac address='52:54:00:00:00:77'/><target dev='vhlimits-0'/><model type='virtio'/>
</interface>"""


def test_limits_of_a_nic_are_set_changed_and_taken_away(backend: Backend) -> None:
    guest = backend.defined(devices=LIMITED)
    for wanted in ((1221, 977), (8, 977), (0, 977), (0, 0)):
        backend.hypervisor.set_bandwidth(guest.uuid, "vhlimits-0", *wanted)
        (nic,) = parse_domain(backend.hypervisor.domain(guest.uuid).xml).nics
        assert (nic.inbound, nic.outbound) == wanted
    with pytest.raises(DriverError):
        backend.hypervisor.set_bandwidth(guest.uuid, "vh-not-there", 1, 1)
