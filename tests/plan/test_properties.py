"""For every site: once it is applied, there is nothing to do; changed, nothing again; deleted, nothing is left."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from unittest.mock import patch

import pytest
from hypothesis import given, settings

from tests.plan.strategies import CANARY_VARIABLE, sites
from vmhost.engine.record import plan_from_json, plan_to_json
from vmhost.model.errors import Refused
from vmhost.model.permit import Permit
from vmhost.model.spec import Site
from vmhost.ops.host import Host
from vmhost.testing import FakeHost
from vmhost.testing.records import FakeJournal

pytestmark = pytest.mark.timeout(600)
CANARY = "canary-9f2c41d7-do-not-write-me-down"
RUNS = settings(max_examples=25 if os.environ.get("VMHOST_TEST_FULL") != "1" else 1000, deadline=None)


def everything(names: tuple[str, ...]) -> Permit:
    """Return the permit for all harm to these guests."""
    return Permit(
        stop=True, power_off=True, disks=True, discard_saved=True, prune=frozenset(names), overwrite=frozenset(names)
    )


def host_of(fake: FakeHost) -> Host:
    return Host(ports=fake.ports)


def bring(fake: FakeHost, site: Site, permit: Permit | None = None) -> None:
    """Apply a site, and see that nothing remains to be done."""
    host = host_of(fake)
    with patch.dict(os.environ, {CANARY_VARIABLE: CANARY}):
        proposal = host.plan(site, permit)
        assert plan_from_json(json.loads(json.dumps(plan_to_json(proposal.plan)))) == proposal.plan
        host.apply(proposal)
    assert host.plan(site).empty, str(host.plan(site))
    assert host.drift(site) == ()


def move(fake: FakeHost, first: Site, second: Site) -> None:
    """Bring a host from one site to another, with everything permitted; replace what must be replaced."""
    names = {guest.name for guest in second.guests}
    gone = tuple(guest.name for guest in first.guests if guest.name not in names)
    permit = everything(gone)
    replaced: frozenset[str] = frozenset()
    there = {guest.name for guest in first.guests}
    for guest in (each for each in second.guests if each.name in there):
        alone = second.model_copy(update={"guests": (guest,)})
        try:
            host_of(fake).plan(alone, Permit(stop=True, discard_saved=True))
        except Refused:
            replaced |= {guest.name}
    bring(
        fake,
        second,
        Permit(stop=True, power_off=True, disks=True, discard_saved=True, prune=permit.prune, replace=replaced),
    )


def equipped() -> FakeHost:
    fake = FakeHost(seed=5)
    fake.add_image("debian-12")
    return fake


@RUNS
@given(first=sites(), second=sites())
def test_from_nothing_through_two_sites_to_nothing(first: Site, second: Site) -> None:
    fake = equipped()
    empty = fake.state()
    bring(fake, first)
    move(fake, first, second)
    taps = [link.name for link in fake.links.links() if link.kind == "tun"]
    assert len(taps) == len(set(taps)), "two NICs never share a tap"
    host = host_of(fake)
    host.apply(host.plan_delete([row.name for row in host.guests()], everything(())))
    assert fake.state() == empty


@RUNS
@given(site=sites())
def test_secrets_are_in_no_plan_journal_event_or_history(site: Site) -> None:
    fake = equipped()
    told: list[str] = []
    with patch.dict(os.environ, {CANARY_VARIABLE: CANARY}), patch.object(FakeJournal, "append", _listen(told)):
        host = host_of(fake)
        proposal = host.plan(site)
        told += [str(proposal), repr(proposal), json.dumps(proposal.as_json())]
        host.apply(proposal, on_event=lambda event: told.append(repr(event)))
    told += [repr(host.jobs()), *(line for job in host.jobs() for line in fake.history.lines(job.id))]
    told += [domain.xml + domain.live_xml for domain in fake.hypervisor.domains()]
    text = "\n".join(told)
    private = [pair.private for pair in proposal.new_keys.values()]
    assert text.count('"type": "begin"') == 1, "the journal was heard"
    assert private, "the site has a key"
    for secret in (CANARY, *proposal.secrets.values(), *private):
        for line in secret.splitlines():
            assert line.startswith("-----") or line not in text


def _listen(told: list[str]) -> Callable[..., None]:
    written = FakeJournal.append

    def append(self: FakeJournal, record: dict[str, object], **how: bool) -> None:
        told.append(json.dumps(record))
        written(self, record, **how)

    return append
