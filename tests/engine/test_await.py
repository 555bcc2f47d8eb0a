"""Waiting for a guest: whatever becomes of it, the answer is prompt and says what was seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest

from tests.engine.scenes import HEAD, WEB, site
from vmhost.engine.await_guest import await_guest
from vmhost.engine.context import Context
from vmhost.engine.reach import address_of
from vmhost.model.errors import Cancelled, GuestError
from vmhost.model.events import Event, Waiting
from vmhost.model.spec import Site
from vmhost.model.steps import AwaitGuest
from vmhost.ops.host import Host
from vmhost.ops.jobs import cancel_job
from vmhost.ops.sites import parse_site
from vmhost.testing import FakeHost
from vmhost.testing.chance import keypair_of

STRANGER = keypair_of(b"s" * 32, "stranger").public


def started(what: Site | None = None, **behaviour: object) -> tuple[FakeHost, AwaitGuest, list[str]]:
    """Return a host with a guest that was started just now, and the step that waits for it."""
    fake = FakeHost(seed=2)
    fake.add_image("debian-12")
    host = Host(ports=fake.ports)
    proposal = host.plan(what or site(WEB))
    step = next(item.do for item in proposal.plan.after if isinstance(item.do, AwaitGuest))
    fake.behave("web-01", **behaviour)

    class Enough(Exception):
        """The guest is started."""

    def until_waiting(event: Event) -> None:
        if isinstance(event, Waiting):
            raise Enough

    with pytest.raises(Enough):
        host.apply(proposal, on_event=until_waiting)
    return fake, step, []


def wait(fake: FakeHost, step: AwaitGuest) -> tuple[str, list[str]]:
    """Wait; return the verdict and what was told meanwhile."""
    seen: list[str] = []

    def hear(event: Event) -> None:
        if isinstance(event, Waiting):
            seen.append(event.seen)

    keys = {step.site: str(fake.keys.private_file(step.site))}
    return await_guest(step, Context(fake.ports, private_keys=keys, on_event=hear)), seen


def test_ready() -> None:
    fake, step, _ = started()
    verdict, seen = wait(fake, step)
    assert verdict == "done"
    assert seen[-3:] == ["SSH answers", "cloud-init is at work", "cloud-init: done"]


def test_never_boots() -> None:
    fake, step, _ = started(boots=False)
    with pytest.raises(GuestError, match=r"not ready after 600 s; last seen: no SSH at 10.0.0.2 port 22 yet") as caught:
        wait(fake, step)
    assert caught.value.hint == "vmhost guest console web-01"


@pytest.mark.parametrize("by", ["ssh", "agent"])
def test_one_that_ended_before_anybody_listened_is_not_awaited(by: Literal["ssh", "agent"]) -> None:
    """Its end was told to nobody: it came right after the start, or libvirtd was away."""
    fake, step, _ = started(agent=False)
    fake.hypervisor.power_off(step.identity.uuid)
    before = fake.ports.clock.monotonic()
    with pytest.raises(GuestError, match="the guest stopped before it was ready"):
        wait(fake, replace(step, by=by))
    assert fake.ports.clock.monotonic() - before < 10
    fake.hypervisor.undefine(step.identity.uuid)
    with pytest.raises(GuestError, match="the guest stopped before it was ready"):
        wait(fake, step)


def test_boots_but_has_no_ssh_and_the_consoles_last_lines_are_told() -> None:
    fake, step, _ = started(ssh=False)
    with pytest.raises(GuestError, match="not ready after 600 s") as caught:
        wait(fake, step)
    assert caught.value.details[-1] == "web-01 login:" or any("login:" in line for line in caught.value.details)
    assert len(caught.value.details) <= 12


def test_a_stranger_answers() -> None:
    fake, step, _ = started(host_key=STRANGER)
    before = fake.ports.clock.monotonic()
    with pytest.raises(GuestError, match="answers with another host key"):
        wait(fake, step)
    assert fake.ports.clock.monotonic() - before < 120, "long before the time-out"


def test_cloud_init_fails_with_its_own_words() -> None:
    fake, step, _ = started(verdict="error", errors=["('scripts_user', RuntimeError('runcmd'))"])
    with pytest.raises(GuestError, match=r"cloud-init reports an error: .*runcmd") as caught:
        wait(fake, step)
    assert caught.value.details[0] == "('scripts_user', RuntimeError('runcmd'))"
    assert "cloud-init-output.log" in caught.value.hint


def test_degraded_is_a_verdict_not_a_failure() -> None:
    fake, step, _ = started(verdict="degraded", warnings=["deprecated key"])
    assert wait(fake, step)[0] == "degraded"


def test_the_guest_ends_meanwhile() -> None:
    fake, step, _ = started(boots=False)

    class Crash:
        """Crashes the guest when somebody begins to watch."""

        def __getattr__(self, name: str) -> object:
            return getattr(fake.ports.signals, name)

        def open(self, *arguments: object) -> object:
            wakeups = fake.ports.signals.open(*arguments)  # type: ignore[arg-type]
            fake.crash_guest("web-01")
            return wakeups

    with pytest.raises(GuestError, match=r"the guest (crashed|stopped) before it was ready"):
        await_guest(step, Context(replace(fake.ports, signals=Crash())))  # type: ignore[arg-type]


def test_by_its_agent_with_cloud_inits_verdict() -> None:
    fake, step, _ = started(cloud_init_seconds=40.0)
    verdict, seen = wait(fake, replace(step, by="agent"))
    assert verdict == "done"
    assert seen.index("the guest agent answers") < seen.index("cloud-init is at work") < seen.index("cloud-init: done")


def test_by_its_agent_alone() -> None:
    fake, step, _ = started()
    verdict, seen = wait(fake, replace(step, by="agent", cloud_init=False))
    assert (verdict, seen[-1]) == ("", "the guest agent answers")


def test_the_agent_tells_of_cloud_inits_failure() -> None:
    fake, step, _ = started(verdict="error", errors=["('runcmd', 'it failed')"])
    with pytest.raises(GuestError, match="it failed"):
        wait(fake, replace(step, by="agent"))


def test_without_an_agent_the_last_word_is_the_agents() -> None:
    fake, step, _ = started(agent=False)
    with pytest.raises(GuestError, match="last seen: agent: "):
        wait(fake, replace(step, by="agent", timeout=60.0))


def test_not_at_all() -> None:
    fake, step, _ = started(boots=False)
    assert wait(fake, replace(step, by="none"))[0] == ""


def test_cancelled() -> None:
    fake, step, _ = started(boots=False)
    with pytest.raises(Cancelled):
        await_guest(step, Context(fake.ports, cancelled=lambda: True))


def test_the_job_is_cancelled_while_cloud_init_is_at_work() -> None:
    """Its verdict, over SSH, would come only after 300 s."""
    fake = FakeHost(seed=2)
    fake.add_image("debian-12")
    fake.behave("web-01", cloud_init_seconds=300.0)
    host = Host(ports=fake.ports)
    since: list[float] = []

    def hear(event: Event) -> None:
        if isinstance(event, Waiting) and event.seen == "cloud-init is at work":
            since.append(fake.ports.clock.monotonic())
            cancel_job(host.ledger.history, host.jobs()[0].id)

    with pytest.raises(Cancelled, match="what was done stays, only the waiting for web-01 ended"):
        host.apply_site(site(WEB), on_event=hear)
    assert fake.ports.clock.monotonic() - since[0] <= 2


DHCP = parse_site(HEAD.replace("subnet: 10.0.0.0/24", "dns: []") + WEB)


def test_an_address_by_dhcp_is_found_in_the_neighbour_table() -> None:
    fake, step, _ = started(DHCP)
    assert step.by == "agent"
    assert address_of(step.identity, fake.ports) is None
    fake.advance(60)
    found = address_of(step.identity, fake.ports)
    assert found is not None
    assert (found.host.startswith("10.0.0."), found.source) == (True, "neighbour table")


def test_without_a_neighbour_the_agent_is_asked() -> None:
    fake, step, _ = started(DHCP)
    fake.advance(60)

    class Silent:
        """No neighbours."""

        def neighbours(self) -> tuple[()]:
            return ()

    found = address_of(step.identity, replace(fake.ports, links=Silent()))  # type: ignore[arg-type]
    assert found is not None
    assert found.source == "guest agent"


LINK = '{"return": [{"hardware-address": "MAC", "ip-addresses": [%s]}]}'


@pytest.mark.parametrize(
    "answer",
    ["7", "[]", '{"return": 7}', '{"return": [7]}', LINK % "", LINK % "{}", LINK % '{"ip-address": "x"}', "[" * 9999],
)
def test_an_agent_that_talks_nonsense_of_its_links_tells_no_address(answer: str) -> None:
    fake, step, _ = started(DHCP)
    fake.advance(60)
    (nic,) = step.identity.nics

    class Nonsense:
        """No neighbours, and an agent that says anything."""

        def neighbours(self) -> tuple[()]:
            return ()

        def agent(self, *_: object) -> str:
            return answer.replace("MAC", nic.mac)

    ports = replace(fake.ports, links=Nonsense(), hypervisor=Nonsense())  # type: ignore[arg-type]
    assert address_of(step.identity, ports) is None
