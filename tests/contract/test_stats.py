"""The counters of all domains."""

from __future__ import annotations

from tests.contract.backends import Backend, eventually
from vmhost.model.observed import DomainState
from vmhost.model.stats import DomainStats


def stats_of(backend: Backend, uuid: str) -> DomainStats | None:
    return next((stats for stats in backend.hypervisor.stats() if stats.uuid == uuid), None)


def test_a_guest_that_does_not_run_uses_nothing(backend: Backend) -> None:
    domain = backend.defined()
    assert stats_of(backend, domain.uuid) == DomainStats(domain.uuid, DomainState.SHUTOFF)


def test_all_domains_are_told_with_their_states_and_no_others(backend: Backend) -> None:
    first, second = backend.defined(), backend.defined()
    backend.hypervisor.start(second.uuid)
    found = {stats.uuid: stats.state for stats in backend.hypervisor.stats()}
    assert found[first.uuid] is DomainState.SHUTOFF
    assert found[second.uuid] is DomainState.RUNNING
    assert set(found) == {raw.uuid for raw in backend.hypervisor.domains()}
    backend.hypervisor.undefine(first.uuid)
    assert stats_of(backend, first.uuid) is None


def test_a_running_guest_has_memory_and_counters_that_never_fall(backend: Backend) -> None:
    domain = backend.defined(memory=32)  # type: ignore[arg-type]
    backend.hypervisor.start(domain.uuid)
    before = stats_of(backend, domain.uuid)
    assert before is not None
    if backend.lacks("counters"):
        assert before == DomainStats(domain.uuid, DomainState.RUNNING, whole=False)
        return
    assert before.memory == 32 << 20
    assert before.cpu_time > 0

    def grown() -> bool:
        after = stats_of(backend, domain.uuid)
        assert after is not None
        counters = ((after.cpu_time, before.cpu_time), (after.read, before.read), (after.sent, before.sent))
        assert all(now >= then for now, then in counters)
        return after.cpu_time > before.cpu_time or backend.name == "fake"

    assert eventually(grown)


def test_what_only_qemu_knows_is_asked_of_some(backend: Backend) -> None:
    asked, other = backend.defined(memory=32), backend.defined(memory=32)  # type: ignore[arg-type]
    for domain in (asked, other):
        backend.hypervisor.start(domain.uuid)
    gone = "00000000-0000-4000-8000-00000000dead"
    found = {stats.uuid: stats for stats in backend.hypervisor.stats(frozenset({asked.uuid, gone}))}
    assert set(found) == {raw.uuid for raw in backend.hypervisor.domains()}
    assert found[asked.uuid].state is found[other.uuid].state is DomainState.RUNNING
    assert found[other.uuid].memory == found[other.uuid].read == 0
    assert not found[other.uuid].whole
    if not backend.lacks("counters"):
        assert found[asked.uuid].memory == 32 << 20
        assert found[asked.uuid].whole
        assert found[other.uuid].cpu_time > 0
    nobody = {stats.uuid: stats for stats in backend.hypervisor.stats(frozenset())}
    assert nobody[asked.uuid].memory == 0
