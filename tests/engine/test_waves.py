"""Steps side by side: which, that they really are, and what happens when several of them fail."""

from __future__ import annotations

import _thread
import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from vmhost.engine.context import Context
from vmhost.engine.record import Record
from vmhost.engine.transaction import Transaction
from vmhost.engine.waves import in_waves
from vmhost.model.errors import AlreadyThere, ApplyError
from vmhost.model.plan import Change, Plan, Planned
from vmhost.model.steps import CreateVolume, DefineDomain, DeleteVolume, EnsurePool, StartDomain, Step
from vmhost.ports import Ports
from vmhost.testing import FakeHost
from vmhost.testing.world import Volume

SOON = 20.0
POOL, START = EnsurePool("vmhost", "/srv"), StartDomain("u", "n")


def planned(*steps: Step) -> Plan:
    return Plan("shop", tuple(Planned(step, undo_of(step), Change.LIVE, "x", str(step)) for step in steps))


def undo_of(step: Step) -> Step | None:
    return DeleteVolume(step.pool, step.name) if isinstance(step, CreateVolume) else None


def volume(name: str) -> CreateVolume:
    return CreateVolume("vmhost", name, 1)


def run(ports: Ports, plan: Plan) -> Transaction:
    record = Record(ports.journals.begin("j"))
    record.begin("test", plan, user="ann", time=0)
    transaction = Transaction(plan, Context(ports), record)
    transaction.run()
    return transaction


def test_what_depends_on_nothing_goes_together_and_all_else_waits() -> None:
    define = DefineDomain("u", "n", "<domain/>")
    steps = planned(POOL, volume("a"), volume("b"), define, START, volume("c"), START, START).steps
    assert [list(wave) for wave in in_waves(steps)] == [[0], [1, 2, 3], [4], [5], [6], [7]]
    many = planned(*(volume(str(number)) for number in range(20))).steps
    assert [len(wave) for wave in in_waves(many)] == [8, 8, 4]
    assert list(in_waves(())) == []


class Meeting:
    """Pools that make a volume only when another one is being made, too."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._barrier = threading.Barrier(2)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def create_volume(self, pool: str, xml: str) -> None:
        self._barrier.wait(SOON)
        self._inner.create_volume(pool, xml)


def test_they_are_done_at_the_same_time_and_told_in_order() -> None:
    fake = FakeHost(seed=1)
    fake.hypervisor.create_pool("vmhost", "/srv")
    plan = planned(volume("a"), volume("b"))
    done = run(replace(fake.ports, hypervisor=Meeting(fake.hypervisor)), plan).done
    assert done == [item.why for item in plan.steps]
    assert {"a", "b"} <= set(fake.world.pools["vmhost"].volumes)


def test_what_was_there_before_us_stays_and_what_we_made_beside_it_goes() -> None:
    fake = FakeHost(seed=1)
    fake.hypervisor.create_pool("vmhost", "/srv")
    for name in ("a", "c"):
        fake.add_volume("vmhost", Volume(name, 7, "qcow2"))
    before = fake.state()
    with pytest.raises(ApplyError) as caught:
        run(fake.ports, planned(volume("a"), volume("b"), volume("c"), volume("d")))
    assert isinstance(caught.value.__cause__, AlreadyThere)
    assert caught.value.undone == (str(volume("d")), str(volume("b")))
    assert fake.state() == before


def test_a_journal_is_durable_before_any_of_them_begins() -> None:
    fake = FakeHost(seed=1)
    fake.hypervisor.create_pool("vmhost", "/srv")
    seen: list[int] = []

    class Looking(Meeting):
        def create_volume(self, pool: str, xml: str) -> None:
            (journal,) = fake.world.journals.values()
            seen.append(sum('"intent"' in text for text in journal.records))
            super().create_volume(pool, xml)

    run(replace(fake.ports, hypervisor=Looking(fake.hypervisor)), planned(volume("a"), volume("b")))
    assert seen == [2, 2]


class Interrupting(Meeting):
    """Pools of which the making of ``b`` is interrupted by Ctrl-C, as often as asked, when the others have ended."""

    def __init__(self, fake: FakeHost, times: int) -> None:
        super().__init__(fake.hypervisor)
        self._fake = fake
        self._times = times
        self.theirs_by_then = False

    def create_volume(self, pool: str, xml: str) -> None:
        if "<name>b</name>" not in xml:
            self._inner.create_volume(pool, xml)
            return
        (journal,) = self._fake.world.journals.values()
        deadline = time.monotonic() + SOON
        while not self.theirs_by_then and time.monotonic() < deadline:
            self.theirs_by_then = any('"theirs": true' in text for text in journal.records)
            threading.Event().wait(0.01)
        for _ in range(self._times):
            _thread.interrupt_main()
            threading.Event().wait(0.1)
        self._inner.create_volume(pool, xml)


@pytest.mark.parametrize("times", [1, 3])
def test_ctrl_c_in_the_middle_undoes_ours_when_all_have_ended_and_leaves_theirs(times: int) -> None:
    fake = FakeHost(seed=1)
    fake.hypervisor.create_pool("vmhost", "/srv")
    fake.add_volume("vmhost", Volume("a", 7, "qcow2"))
    before = fake.state()
    pools = Interrupting(fake, times)
    with pytest.raises(KeyboardInterrupt):
        run(replace(fake.ports, hypervisor=pools), planned(volume("a"), volume("b"), volume("c")))
    assert pools.theirs_by_then, "that it is another's was on the disk before the last of them ended"
    assert fake.state() == before
    assert not fake.ports.journals.any_open()
