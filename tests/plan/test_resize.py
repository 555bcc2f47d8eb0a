"""Other vCPUs and memory for one guest, and what was changed past vmhost."""

from __future__ import annotations

import pytest

from vmhost.model.errors import NotFound, Refused
from vmhost.model.observed import Observed
from vmhost.model.permit import Permit
from vmhost.model.plan import Change, Plan
from vmhost.model.spec import CpuSpec, DiskSpec, GuestSpec, MemorySpec
from vmhost.model.steps import DefineDomain, SetMetadata, ShutDown, StartDomain
from vmhost.plan.outside import applied_spec, edited, volumes_by_path
from vmhost.plan.resize import COMMAND, Resize, plan_resize
from vmhost.render.parse.domain import parse_domain
from vmhost.render.parse.metadata import parse_metadata
from vmhost.testing import builders

GIB = 1 << 30


def resize(observed: Observed, cpus: int | None = 4, memory: int | None = 2 * GIB, **permit: bool) -> Plan:
    wish = Resize(
        "web-01",
        CpuSpec(count=cpus, max=cpus) if cpus else None,
        MemorySpec(size=memory, max=memory) if memory else None,
        "2026-02-02T00:00:00Z",
        "bob",
    )
    return plan_resize(wish, observed, Permit(**permit))


def host(*, running: bool = True) -> Observed:
    return builders.observed(builders.guest("web-01"), running=running)


def test_a_running_guest_has_them_at_its_next_boot() -> None:
    plan = resize(host())
    define, note = plan.steps
    assert define.change is Change.NEXT_BOOT
    assert isinstance(define.do, DefineDomain)
    facts = parse_domain(define.do.xml)
    assert (facts.vcpus, facts.max_vcpus, facts.memory, facts.max_memory) == (4, 4, 2 * GIB, 2 * GIB)
    assert define.undo == DefineDomain(define.do.uuid, "web-01", host().domains[0].raw.xml)
    assert isinstance(note.do, SetMetadata)
    assert "--allow-stop" in str(plan)
    assert "write the same into the file of site shop" in str(plan)


def test_or_at_once_if_it_may_be_restarted() -> None:
    kinds = [type(item.do) for item in resize(host(), stop=True).steps]
    assert kinds == [DefineDomain, SetMetadata, ShutDown, StartDomain]
    assert {item.change for item in resize(host(), stop=True).steps} == {Change.NEEDS_STOP, Change.LIVE}


def test_a_guest_that_does_not_run_is_not_started() -> None:
    kinds = [(type(item.do), item.change) for item in resize(host(running=False), stop=True).steps]
    assert kinds == [(DefineDomain, Change.LIVE), (SetMetadata, Change.LIVE)]


def test_its_metadata_says_so() -> None:
    plan = resize(host(), memory=None)
    assert isinstance(plan.steps[1].do, SetMetadata)
    noted = parse_metadata(plan.steps[1].do.xml)
    assert noted is not None
    assert (noted.command, noted.user, noted.applied) == (COMMAND, "bob", "2026-02-02T00:00:00Z")
    spec = GuestSpec.model_validate_json(noted.spec)
    assert (spec.cpus.count, spec.memory.size) == (4, 512 << 20)


def test_nothing_to_do() -> None:
    plan = resize(host(), cpus=1, memory=512 << 20)
    assert plan.empty
    assert "already" in str(plan)


def test_refusals() -> None:
    with pytest.raises(NotFound):
        resize(builders.observed())
    with pytest.raises(Refused, match="more than the host's"):
        resize(host(), memory=64 * GIB)
    spec = builders.guest("web-01")
    foreign = builders.observed_domain(spec, ours=False)
    with pytest.raises(Refused, match="foreign"):
        resize(builders.observed(spec, domains=(foreign,)))
    saved = builders.observed_domain(spec, running=False, managed_save=True)
    with pytest.raises(Refused, match="saved"):
        resize(builders.observed(spec, domains=(saved,)))
    assert resize(builders.observed(spec, domains=(saved,)), discard_saved=True).steps


def outside(observed: Observed) -> list[str]:
    volumes = volumes_by_path(observed)
    found = (edited(domain, observed, volumes, disks=builders.POOL_PATH) for domain in observed.domains)
    return [str(difference) for differences in found for difference in differences]


def test_a_guest_as_applied_was_not_edited() -> None:
    disks = (DiskSpec(id="root", size=10 * GIB), DiskSpec(id="data", size=20 * GIB))
    assert outside(builders.observed(builders.guest("a"), builders.guest("b", disks=disks), running=False)) == []


def test_what_somebody_edited_is_told() -> None:
    spec = builders.guest("web-01")
    other = builders.guest("web-01", cpus={"count": 2})
    who = builders.identity(spec)
    edited_domain = builders.observed_domain(other)
    about = builders.metadata(spec, who)
    from dataclasses import replace

    domain = replace(edited_domain, metadata=about)
    observed = builders.observed(spec, domains=(domain,))
    assert [text.partition(" is ")[0] for text in outside(observed)] == ["web-01: cpus.count", "web-01: cpus.max"]


def test_foreign_guests_and_unreadable_specs_are_nobodys_drift() -> None:
    from dataclasses import replace

    spec = builders.guest("web-01")
    foreign = builders.observed_domain(spec, ours=False)
    assert applied_spec(foreign) is None
    assert outside(builders.observed(spec, domains=(foreign,))) == []
    ours = builders.observed_domain(spec)
    assert ours.metadata is not None
    broken = replace(ours, metadata=replace(ours.metadata, spec="{}"))
    newer = replace(ours, metadata=replace(ours.metadata, version=99))
    assert outside(builders.observed(spec, domains=(broken,))) == []
    assert outside(builders.observed(spec, domains=(newer,))) == []
