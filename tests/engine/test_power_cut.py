"""A power cut at every call of making a guest, or of taking and merging a snapshot: the journal that is on the disk is
enough to settle what it left.
"""

from __future__ import annotations

from contextlib import suppress

import pytest

from tests.engine.scenes import OTHER, WEB, Scene, shape, site, stage, strict
from tests.engine.scenes import SCENES as CHANGES
from vmhost.ops.apply import recover_host
from vmhost.ops.host import Host
from vmhost.testing import FakeHost, FaultPlan, FaultyPorts, SimulatedKill

UNSEEN = WEB + "    ready: {by: none}\n"
SCENES = {
    "a guest that is waited for": Scene("", lambda host: host.plan(site(WEB))),
    "a guest that nobody waits for": Scene("", lambda host: host.plan(site(UNSEEN))),
    "one more": Scene(OTHER, lambda host: host.plan(site(OTHER, UNSEEN))),
} | {name: scene for name, scene in CHANGES.items() if "snapshot" in name and name.split()[0] in ("take", "delete")}


def dark(fake: FakeHost) -> FakeHost:
    fake.cut_power()
    return fake


@pytest.mark.parametrize("name", SCENES)
def test_the_host_is_as_before_or_as_after(name: str) -> None:
    scene = SCENES[name]
    reference = stage(scene)
    faulty = FaultyPorts(reference.ports)
    host = Host(ports=faulty.ports)
    host.apply(scene.propose(host))
    before, after = dark(stage(scene)).state(), dark(reference).state()
    for call in faulty.calls:
        for place in ("before", "after"):
            fake = stage(scene)
            host = Host(ports=FaultyPorts(fake.ports, FaultPlan(call.number, place)).ports)
            with suppress(SimulatedKill):
                host.apply(scene.propose(host))
            fake.cut_power()
            recover_host(fake.ports)
            settled = fake.state()
            where = f"{name}, {place} call {call}"
            assert shape(settled) in (shape(before), shape(after)), where
            if shape(settled) == shape(before):
                assert strict(settled) == strict(before), where
            assert not fake.world.journals, where


def test_before_a_guest_starts_with_what_was_changed_that_is_on_the_disk() -> None:
    """libvirt starts it again when the host boots, and who undoes the change then has to know that it may run."""
    scene = CHANGES["change with a restart"]
    fake = stage(scene)
    waited: list[bool] = []
    start = fake.domains.start

    def looking(uuid: str) -> None:
        (journal,) = fake.world.journals.values()
        waited.append(journal.durable == len(journal.records))
        start(uuid)

    fake.domains.start = looking  # type: ignore[method-assign]
    host = Host(ports=fake.ports)
    host.apply(scene.propose(host))
    assert waited == [True]


def test_a_start_alone_waits_for_no_record() -> None:
    fake = stage(SCENES["one more"])
    host = Host(ports=fake.ports)
    host.power(["db-01"], "power-off")
    waited: list[int] = []
    start = fake.domains.start

    def looking(uuid: str) -> None:
        (journal,) = fake.world.journals.values()
        waited.append(journal.durable)
        start(uuid)

    fake.domains.start = looking  # type: ignore[method-assign]
    (result,) = host.power(["db-01"], "start")
    assert result.error is None
    assert waited == [0]


def test_the_disk_is_not_waited_for_while_a_guest_is_frozen() -> None:
    fake = stage(CHANGES["take a snapshot"])
    counted = FaultyPorts(fake.ports)
    host = Host(ports=counted.ports)
    host.apply(CHANGES["take a snapshot"].propose(host))
    told = [str(call) for call in counted.calls]
    frozen = next(number for number, text in enumerate(told) if "guest-fsfreeze-freeze" in text)
    thawed = next(number for number, text in enumerate(told) if "guest-fsfreeze-thaw" in text)
    between = told[frozen:thawed]
    assert any("snapshot_disks" in text for text in between)
    assert not [text for text in between if "journal" in text and "durable=True" in text]
