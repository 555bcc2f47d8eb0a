"""The plan screen: what it shows before, during and after a change, and that nothing is done without a yes."""

from __future__ import annotations

import shlex
import threading

import pytest

from tests.tui.stage import Stage, on_stage
from vmhost.model.errors import DriverError
from vmhost.ops.forms import NewGuest
from vmhost.testing.demo import demo_host
from vmhost.testing.faults import FaultPlan, FaultyPorts
from vmhost.tui import changes

pytestmark = [pytest.mark.tui, pytest.mark.asyncio]


async def plan_for(stage: Stage, name: str, *keys: str) -> None:
    await stage.goto(name)
    await stage.press(*keys)
    await stage.until(lambda: stage.place == "PlanScreen" and ": planning" not in stage.text)


def state(stage: Stage, name: str) -> str:
    return str(stage.fake.domain(name).state)


@pytest.mark.parametrize(
    ("guest", "key", "command", "after"),
    [
        ("web-03", "u", "vmhost guest start web-03", "running"),
        ("web-01", "S", "vmhost guest stop web-01", "shut off"),
        ("web-01", "R", "vmhost guest restart web-01", "running"),
        ("web-01", "D", "vmhost guest stop --power-off web-01", "shut off"),
    ],
)
async def test_power(guest: str, key: str, command: str, after: str) -> None:
    async with on_stage() as stage:
        before = state(stage, guest)
        number = stage.fake.world.started
        await plan_for(stage, guest, key)
        await stage.shows(f"$ {command}", "nothing is done yet", "y yes, apply")
        assert state(stage, guest) == before
        await stage.press("y")
        await stage.shows(": done", "✓")
        assert state(stage, guest) == after
        assert stage.fake.world.started == number + (key in "uR")
        assert "y yes, apply" not in stage.text
        await stage.press("escape")
        assert stage.place == "GuestsScreen"


async def test_no_is_no() -> None:
    async with on_stage() as stage:
        before = stage.fake.state()
        await plan_for(stage, "web-01", "D")
        await stage.press("escape")
        assert stage.place == "GuestsScreen"
        assert stage.fake.state() == before


async def test_steps_classes_reasons_undo_and_xml_are_shown() -> None:
    async with on_stage() as stage:
        await plan_for(stage, "web-01", "S")
        assert "needs stop" in stage.row("web-01: shut down")
        assert "start domain web-01" in stage.row("  1 ")
        assert "1 guest is stopped or restarted by this" in stage.text
        assert "the guest does not run meanwhile" in stage.lines()


async def test_marked_guests_are_restarted_one_after_another() -> None:
    async with on_stage() as stage:
        await stage.press("slash")
        await stage.type("web")
        await stage.press("enter", "asterisk")
        await plan_for(stage, "web-01", "R")
        await stage.shows("vmhost guest restart web-01 web-02 web-03", "web-03: start")
        assert "2 guests are stopped" in stage.text or "3 guests are stopped" in stage.text
        await stage.press("y")
        await stage.shows(": done")
        assert [state(stage, f"web-0{number}") for number in (1, 2, 3)] == ["running"] * 3
        order = [line for line in stage.lines().splitlines() if "start" in line and "[" in line]
        assert [line.split("]")[1].split(":")[0].strip() for line in order] == ["web-01", "web-02", "web-03"]


async def test_one_that_fails_does_not_stop_or_undo_the_others() -> None:
    fake = demo_host(speed=0)
    fake.behave("web-01", obeys=False)
    async with on_stage(fake) as stage:
        await stage.press("slash")
        await stage.type("web !03")
        await stage.press("enter", "asterisk")
        await plan_for(stage, "web-01", "S")
        await stage.press("y")
        await stage.shows(": failed", "FAILED")
        assert (state(stage, "web-01"), state(stage, "web-02")) == ("running", "shut off")
        assert "try:" in stage.lines()


async def test_nothing_to_do_is_said() -> None:
    async with on_stage() as stage:
        await plan_for(stage, "web-01", "u")
        await stage.shows("there is nothing to do", "it runs already")
        await stage.press("y")
        assert stage.place == "PlanScreen"
        assert "there is nothing to do" in stage.text


@pytest.mark.parametrize("key", ["u", "S", "R", "D", "ctrl+d"])
async def test_foreign_guests_are_refused_with_a_hint(key: str) -> None:
    async with on_stage() as stage:
        before = stage.fake.state()
        await plan_for(stage, "jenkins", key)
        await stage.shows("this cannot be done", "foreign", "try:")
        await stage.press("y")
        assert stage.fake.state() == before


async def test_deleting_asks_for_each_harm_by_name() -> None:
    async with on_stage() as stage:
        await plan_for(stage, "web-01", "ctrl+d")
        await stage.shows("this cannot be done", "[ ] p", "[ ] x")
        await stage.press("p")
        await stage.shows("[x] p", "vmhost guest delete web-01 --power-off", "undefine")
        assert stage.text.count("delete vmhost/") == 1, "its seed"
        await stage.press("x")
        await stage.shows("vmhost guest delete web-01 --disks --power-off", "cannot be undone")
        await stage.until(lambda: stage.text.count("delete vmhost/") == 2)
        await stage.press("x", "x")
        await stage.shows("[x] x")
        await stage.until(lambda: "y yes, apply" in stage.text)
        await stage.press("y")
        await stage.shows(": done")
        await stage.press("escape")
        await stage.until(lambda: "web-01" not in stage.text)


async def test_a_protected_guest_stays() -> None:
    async with on_stage() as stage:
        await plan_for(stage, "db-01", "ctrl+d")
        await stage.press("p")
        await stage.shows("this cannot be done", "protect")


async def test_the_host_changed_since_the_plan_was_shown() -> None:
    async with on_stage() as stage:
        await plan_for(stage, "web-01", "S")
        stage.fake.hypervisor.power_off(stage.fake.domain("web-01").uuid)
        await stage.press("y")
        await stage.shows("the host changed since the plan was shown", "r plans again")
        await stage.press("r")
        await stage.shows("there is nothing to do", "it does not run")


async def test_a_failure_shows_what_failed_what_was_undone_and_what_to_type() -> None:
    fake = demo_host(speed=0)

    def refuse(_call: object) -> DriverError:
        return DriverError("no such luck", subject="web-03", hint="virsh start web-03")

    faulty = FaultyPorts(fake.ports, FaultPlan(at=0, error=refuse, only=lambda *call: call == ("hypervisor", "start")))
    async with on_stage(fake) as stage:
        stage.app.host.__dict__["_given"] = faulty.ports
        stage.app.host.__dict__.pop("ports", None)
        await plan_for(stage, "web-03", "u")
        await stage.press("y")
        await stage.shows(": failed", "FAILED: ", "no such luck")
        assert "✗ FAILED" in stage.row("web-03: start")
        assert stage.app.at_work == 0


async def test_the_command_can_be_copied() -> None:
    async with on_stage() as stage:
        await plan_for(stage, "web-01", "S")
        await stage.press("w")
        assert stage.app.clipboard == "vmhost guest stop web-01"


async def test_while_it_runs_nobody_leaves_and_esc_asks_it_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, begun = threading.Event(), threading.Event()
    async with on_stage() as stage:
        apply = stage.app.host.apply

        def slowly(proposal, **more):  # type: ignore[no-untyped-def]
            begun.set()
            go_on.wait(10)
            return apply(proposal, **more)

        monkeypatch.setattr(stage.app.host, "apply", slowly)
        before = stage.fake.state()
        await plan_for(stage, "web-01", "S")
        await stage.press("y")
        await stage.until(begun.is_set)
        await stage.shows(": at work")
        await stage.press("q")
        assert stage.app.is_running
        await stage.press("y", "r", "p")
        stage.app.obey(":host")
        assert stage.place == "PlanScreen"
        await stage.press("escape")
        await stage.shows("ending as soon as this step allows")
        await stage.press("escape")
        assert stage.place == "PlanScreen"
        go_on.set()
        await stage.shows(": failed")
        assert stage.fake.state() == before
        await stage.press("q")


async def test_swapping_between_the_step_and_the_log() -> None:
    async with on_stage() as stage:
        await plan_for(stage, "web-03", "u")
        await stage.press("y")
        await stage.shows(": done")
        assert "done in 0." in stage.lines()
        await stage.press("v")
        assert "change   live" in stage.lines()
        await stage.press("v")
        assert "done in 0." in stage.lines()


@pytest.mark.parametrize("text", ["br0; reboot", "$(reboot)", "it's", "a b", "*"])
async def test_every_word_of_a_command_is_quoted(text: str) -> None:
    wish = NewGuest(text, image=text, cpus=text, memory=text, disk=text, network=text, address=text)
    given = (f"--{name}" for name in ("image", "cpus", "memory", "disk", "network", "address"))
    words = ["vmhost", "guest", "create", text, *(word for flag in given for word in (flag, text))]
    none = frozenset[str]()
    assert shlex.split(changes.create(wish).command(none)) == words
    assert shlex.split(changes.pin(text, {}, ("--policy", text)).command(frozenset({"--allow-stop"}))) == [
        *("vmhost", "guest", "pin", "--policy", text, text, "--allow-stop")
    ]
    assert shlex.split(changes.apply_network(text, 60).command(none)) == [
        "vmhost",
        "net",
        "apply",
        text,
        "--confirm",
        "60",
    ]
