"""What may start now, on a fake host: through the same calls that the faces make."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from vmhost.model.errors import NoCapacity, Refused, SpecError
from vmhost.model.events import Event as Event_
from vmhost.model.permit import Permit
from vmhost.model.spec import Site
from vmhost.model.stats import LinkLoad
from vmhost.model.steps import StartDomain
from vmhost.model.units import parse_cpuset
from vmhost.ops.host import Host
from vmhost.ops.power import Action
from vmhost.ops.sites import parse_site
from vmhost.testing import FakeHost
from vmhost.testing.agent import Asked
from vmhost.testing.faults import FaultPlan, FaultyPorts
from vmhost.testing.topologies import Shape, kernel

GIB = 1 << 30
PAGES = Shape(cells=2, cores=4, memory=4 * GIB, pages=((2 << 20, 256),))


def fake(shape: Shape = PAGES) -> FakeHost:
    made = FakeHost(seed=11)
    made.add_image("debian-12")
    made.shaped(shape)
    return made


def site_of(guests: str, kept: str = "{}") -> Site:
    head = f"host: {kept}\n"
    text = (
        f"apiVersion: vmhost/v1\nname: s\n{head}defaults: {{image: debian-12, memory: 256M, disks: [{{size: 4G}}]}}\n"
    )
    return parse_site(f"{text}guests: {{{guests}}}")


def bring(host: Host, guests: str, kept: str = "{}") -> None:
    site = site_of(guests, kept)
    host.apply(host.plan(site, Permit(stop=True)))
    assert host.plan(site).empty, str(host.plan(site))
    assert host.drift(site) == ()


def test_guests_that_do_not_fit_together_are_not_started() -> None:
    host = Host(ports=fake().ports)
    bring(host, "a: {memory: 3G, state: stopped}, b: {memory: 3G, state: stopped}, c: {memory: 1G}")
    with pytest.raises(NoCapacity, match=r"a: needs .*with the others that start"):
        host.plan_power(["a", "b"], "start")
    assert {row.name: row.state for row in host.guests()} == {"a": "shut off", "b": "shut off", "c": "running"}
    host.power(["a"], "start")
    with pytest.raises(NoCapacity, match="guests that run have"):
        host.plan_power(["b"], "start")
    assert host.plan_power(["a"], "restart"), "what runs may be restarted"


@pytest.mark.parametrize("action", ["start", "restart"])
def test_a_guest_that_another_starts_at_this_moment_counts_as_one_that_runs(action: Action) -> None:
    made = fake()
    host = Host(ports=made.ports)
    bring(host, "a: {memory: 3G, state: stopped}, b: {memory: 3G, state: stopped}, c: {memory: 1G}")
    if action == "restart":
        host.power(["a"], "start")
    (first,), proposals = host.plan_power(["a"], action), []
    if action == "start":
        proposals += host.plan_power(["b"], "start")  # both are shown as possible, and either would be alone
    inside, go_on = Event(), Event()

    def at_start(port: str, method: str) -> bool:
        if (port, method) == ("hypervisor", "start"):
            inside.set()
            assert go_on.wait(30)
        return False

    slow = Host(ports=FaultyPorts(made.ports, FaultPlan(0, only=at_start)).ports)
    with ThreadPoolExecutor(1) as elsewhere:
        started = elsewhere.submit(slow.apply, first)
        try:
            assert inside.wait(30)
            with pytest.raises(NoCapacity, match=r"b: needs .* guests that run have"):
                host.plan_power(["b"], "start")
            for proposal in proposals:
                with pytest.raises(NoCapacity, match=r"b: needs .* guests that run have"):
                    host.apply(proposal)
            site = "a: {memory: 3G, state: stopped}, c: {memory: 1G}, d: {memory: 3G}"
            with pytest.raises(NoCapacity):
                bring(host, site)
        finally:
            go_on.set()
        assert started.result(30).done
    assert {row.name: row.state for row in host.guests()} == {"a": "running", "b": "shut off", "c": "running"}


def test_hugepages_that_somebody_took_meanwhile() -> None:
    made = fake()
    host = Host(ports=made.ports)
    bring(host, "a: {memory: {size: 256M, hugepages: 2M}, state: stopped}")
    cell = host.observe().domain("a")
    assert cell is not None
    made.world.kernel = kernel(PAGES, free={(0, 2 << 20): 100, (1, 2 << 20): 100})
    with pytest.raises(NoCapacity, match="needs 128 hugepages of 2M in cell 0, 100 are free"):
        host.plan_power(["a"], "start")


def test_a_pcpu_that_went_offline() -> None:
    made = fake()
    host = Host(ports=made.ports)
    bring(host, "a: {cpus: {count: 1, policy: dedicated, pins: {0: 7}}, state: stopped}")
    made.world.kernel = {**made.world.kernel, "cpu/online": "0-6"}
    with pytest.raises(NoCapacity, match="pinned to pCPU 7, which is offline"):
        host.plan_power(["a"], "start")


def test_the_reserve_is_kept_from_guests() -> None:
    host = Host(ports=fake().ports)
    kept = "{reserve_cpus: 0-1, reserve_memory: 2G}"
    bring(host, "a: {cpus: 2}, b: {cpus: {count: 2, policy: dedicated}}", kept)
    found = host.capacity(site=parse_site(f"{{apiVersion: vmhost/v1, name: s, host: {kept}}}"))
    uses = {row.id: row.use for row in found.cpus}
    assert uses[0] == uses[1] == "reserve"
    assert found.reserve == 2 * GIB
    own = next(share.own for share in found.guests if share.name == "b")
    assert not {"0", "1"} & set(own.split("-"))
    with pytest.raises(Refused, match="in the host's reserve"):
        bring(host, "a: {cpus: 2}, b: {cpus: {count: 1, policy: dedicated, pins: {0: 1}}}", kept)
    with pytest.raises(Refused, match="2G are kept in reserve, 1G are hugepages"):
        bring(host, "a: {cpus: 2}, c: {memory: 4600M}", kept)


def test_the_hosts_own_file_counts_for_commands(tmp_path) -> None:
    from vmhost.testing.host import layout_in

    made = FakeHost(seed=11, layout=layout_in(tmp_path))
    made.add_image("debian-12")
    made.shaped(PAGES)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "host.yaml").write_text(
        "{apiVersion: vmhost/v1, name: host, host: {reserve_cpus: 0-3, reserve_memory: 1G}}"
    )
    host = Host(ports=made.ports)
    bring(host, "a: {cpus: 2}")
    assert host.capacity().pool == "4-7"
    host.apply(host.plan_pin("a", policy="dedicated"))
    own = next(share.own for share in host.capacity().guests if share.name == "a")
    assert own == "4-5"


MEMORY = Shape(cores=8, memory=8 * GIB)


def test_memory_that_a_guest_gives_back_at_its_next_boot_is_promised_until_then() -> None:
    host = Host(ports=fake(MEMORY).ports)
    bring(host, "a: {memory: 6G}")
    host.apply(host.plan(site_of("a: {memory: 1G}")))
    assert host.capacity().promised > 6 * GIB, "it runs with 6G"
    both = site_of("a: {memory: 1G}, b: {memory: 5G}")
    with pytest.raises(NoCapacity, match="b: needs "):
        host.plan(both)
    host.power(["a"], "restart")
    host.apply(host.plan(both))
    assert {row.name: row.state for row in host.guests()} == {"a": "running", "b": "running"}


def test_memory_that_a_restart_gives_back_is_there_for_others_of_the_same_plan() -> None:
    host = Host(ports=fake(MEMORY).ports)
    bring(host, "b: {memory: 6G}")
    with pytest.raises(NoCapacity, match="a: needs "):
        host.plan(site_of("a: {memory: 5G}, b: {memory: 1G}"))
    plan = host.plan(site_of("a: {memory: 5G}, b: {memory: 1G}"), Permit(stop=True))
    starts = [step.do.name for step in plan.plan.steps if isinstance(step.do, StartDomain)]
    assert starts == ["b", "a"], "first what gives back, then what takes"
    host.apply(plan)
    assert host.capacity().promised < 7 * GIB


@pytest.mark.parametrize("then", ["dedicated", "shared"])
def test_vcpus_that_run_on_until_the_next_boot_keep_their_place(then: str) -> None:
    made = fake(Shape(cores=8, memory=8 * GIB))
    host = Host(ports=made.ports)
    bring(host, "a: {cpus: {count: 4, policy: dedicated}}")
    small, both = f"a: {{cpus: {{count: 1, policy: {then}}}}}", "b: {cpus: {count: 3, policy: dedicated}}"
    host.apply(host.plan(site_of(small)))
    host.apply(host.plan(site_of(f"{small}, {both}")))
    own = {share.name: parse_cpuset(share.own) for share in host.capacity().guests if share.own}
    names = {domain.uuid: domain.name for domain in host.observe().domains}
    held = {names[uuid]: kernel_says.vcpus for uuid, kernel_says in made.ports.kernel.held().items()}
    assert {name: len(vcpus) for name, vcpus in held.items()} == {"a": 4, "b": 3}
    for name, vcpus in held.items():
        others = {cpu for other, mine in own.items() if other != name for cpu in mine}
        for vcpu, cpus in vcpus:
            assert not cpus & others, f"vCPU {vcpu} of {name} runs on {sorted(cpus)}"
    assert host.drift(site_of(f"{small}, {both}")) == ()
    host.power(["a"], "restart")
    host.apply(host.plan(site_of(f"{small}, {both}")))
    own = {share.name: parse_cpuset(share.own) for share in host.capacity().guests if share.own}
    assert len(own.get("a", ())) == (then == "dedicated")


def test_what_is_asked_of_a_pin_is_never_left_out() -> None:
    host = Host(ports=fake().ports)
    bring(host, "a: {cpus: {count: 2, policy: dedicated, pins: {0: 1, 1: 3}}}")
    with pytest.raises(Refused, match="vCPU 7 is none of those"):
        host.plan_pin("a", pins={7: 1})
    with pytest.raises(Refused, match="policy mixed and dedicated belong together"):
        host.plan_pin("a", policy="isolated", dedicated="0")
    with pytest.raises(Refused, match="threads needs policy dedicated"):
        host.plan_pin("a", policy="shared", threads="isolate")
    assert not host.plan_pin("a", policy="shared").empty, "pins of its former policy are no hindrance"


def test_a_limit_that_would_kill_the_guest_is_refused_with_one_that_would_not() -> None:
    host = Host(ports=fake().ports)
    with pytest.raises(Refused, match="the kernel would kill it") as caught:
        bring(host, "a: {memory: {size: 256M, limit: 300M}}")
    enough = caught.value.hint.split("limit: ")[1].split(",")[0]
    bring(host, f"a: {{memory: {{size: 256M, limit: {enough}}}}}")
    assert host.guest("a").row.state == "running"


def test_foreign_guests_that_float_are_named_and_forbid_isolation() -> None:
    made = fake()
    from vmhost.testing import builders

    spec = builders.guest("theirs", network=None)
    made.hypervisor.define(builders.domain_xml(spec, builders.identity(spec), None))
    made.hypervisor.set_autostart(builders.uuid_of("theirs"), True)
    host = Host(ports=made.ports)
    assert host.capacity().loose == ("theirs",)
    with pytest.raises(NoCapacity, match="foreign guests are not pinned: theirs"):
        bring(host, "a: {cpus: {count: 1, policy: isolated}}")
    site = parse_site(
        "{apiVersion: vmhost/v1, name: s, guests: {a: {image: debian-12, memory: 256M, disks: [{size: 4G}],"
        " cpus: {count: 1, policy: dedicated}}}}"
    )
    assert any("theirs" in note.text for note in host.plan(site).plan.notes)


def test_what_would_not_come_up_after_a_reboot_is_told() -> None:
    made = fake()
    host = Host(ports=made.ports)
    bring(host, "a: {memory: {size: 256M, hugepages: 2M}, autostart: true}")
    assert host.capacity().after_reboot == ()
    made.shaped(Shape(cells=2, cores=4, memory=4 * GIB, pages=((2 << 20, 20),)))
    (told,) = host.capacity().after_reboot
    assert "they need 128 hugepages of 2M in cell 0, 20 are there" in told


def test_memory_beyond_its_threshold_is_told() -> None:
    host = Host(ports=fake().ports)
    bring(host, "a: {memory: 3G}, b: {memory: 3G}")
    assert [text.split(":")[0] for text in host.capacity().short] == ["memory"]
    assert host.capacity(fits=["large"]).fits[0].count == 0


def test_a_host_has_thresholds_of_its_own() -> None:
    host = Host(ports=fake().ports)
    bring(host, "a: {memory: 3G}, b: {cpus: {count: 2, policy: dedicated}}")

    def short(thresholds: str) -> list[str]:
        site = parse_site(f"{{apiVersion: vmhost/v1, name: s, host: {{thresholds: {thresholds}}}}}")
        return [text.split(":")[0] for text in host.capacity(site=site).short]

    assert short("{memory: 90}") == []
    assert short("{memory: 50, cpu: 20}") == ["cpu", "memory"]
    assert short("{cpu: 25}") == ["cpu"]
    assert short("{storage: 1}") in ([], ["storage vmhost"])
    with pytest.raises(SpecError, match=r"thresholds\.memory"):
        short("{memory: 101}")


def test_an_uplink_that_carries_almost_all_that_it_can_is_told() -> None:
    made = fake()
    host = Host(ports=made.ports)
    rate = 1_000_000_000
    looks = iter((LinkLoad(0, 0, rate), LinkLoad(10**12, 5, rate)))

    def meanwhile(port: str, method: str) -> bool:
        if (port, method) == ("kernel", "traffic"):
            made.world.traffic = {"eno1": next(looks), "eno2": LinkLoad(7, 7, rate)}
        return False

    measured = Host(ports=FaultyPorts(made.ports, FaultPlan(0, only=meanwhile)).ports)
    (told,) = measured.capacity(measure=0.01).short
    assert told.startswith("network eno1: ")
    assert told.endswith(" percent are taken, 90 is the threshold")
    assert host.capacity().short == (), "only what is measured is told"


def test_room_for_more_vcpus_beside_a_guest_with_its_own_pcpus() -> None:
    host = Host(ports=fake().ports)
    bring(host, "a: {cpus: 1}")
    bring(host, "a: {cpus: {count: 1, max: 2}}, b: {cpus: {count: 2, policy: mixed, dedicated: '0'}}")
    bring(host, "a: {cpus: {count: 2, max: 2}}, b: {cpus: {count: 2, policy: mixed, dedicated: '0'}}")
    assert host.guest("a").domain.facts.vcpus == 2


def test_a_guest_that_was_made_anew_is_where_the_plan_put_it() -> None:
    host = Host(ports=fake().ports)
    bring(host, "a: {cpus: 1}, b: {cpus: {count: 2, policy: mixed, dedicated: '0'}}")
    site = parse_site(
        "{apiVersion: vmhost/v1, name: s, guests: {a: {image: debian-12, memory: 256M, disks: [{size: 4G}],"
        " cpus: {count: 1, policy: dedicated}}}}"
    )
    permit = Permit(power_off=True, disks=True, replace=frozenset({"a"}), prune=frozenset({"b"}))
    host.apply(host.plan(site, permit))  # which looks again at its end
    assert host.drift(site) == ()


@pytest.mark.parametrize("answers", [True, False])
def test_plugged_memory_is_brought_online_by_the_agent_or_it_is_said(answers: bool) -> None:
    made = fake()
    host, events, asked = Host(ports=made.ports), list[Event_](), list[dict[str, object]]()
    bring(host, "a: {memory: {size: 512M, max: 1G}}")
    blocks = [{"phys-index": number, "online": True} for number in range(4)]

    def told(_: object) -> list[dict[str, object]]:
        live = made.domain("a").live_xml
        new = [{"phys-index": 32 + number, "online": False} for number in range(2 * live.count("ua-memory-"))]
        return [*blocks, *new]

    def bring_online(question: Asked) -> list[dict[str, object]]:
        asked.extend(question.arguments["mem-blks"])
        return [{"phys-index": one["phys-index"], "response": "success"} for one in question.arguments["mem-blks"]]

    if answers:
        made.agents.answers |= {"guest-get-memory-blocks": told, "guest-set-memory-blocks": bring_online}
    host.apply(host.plan_resize("a", memory=768 << 20), on_event=events.append)
    said = [event for event in events if "did not bring the new memory online" in str(event)]
    assert bool(said) is not answers
    assert [one["phys-index"] for one in asked] == ([32, 33] if answers else [])
    assert host.plan_resize("a", memory=768 << 20).empty


def test_the_time_that_was_stolen_is_told_by_the_guest_itself() -> None:
    made = fake()
    host = Host(ports=made.ports)
    bring(host, "a: {cpus: 2}")
    assert host.guest("a").stolen is None, "an old agent does not know"
    one = {"type": "linux", "cpu": 0, "user": 500, "system": 100, "idle": 300, "steal": 100}
    made.agents.answers["guest-get-cpustats"] = lambda _: [one, {**one, "idle": 400, "steal": 0}]
    assert host.guest("a").stolen == 100 / 2000
    made.agents.answers["guest-get-cpustats"] = lambda _: {"strange": 1}
    assert host.guest("a").stolen is None
    host.power(["a"], "power-off")
    assert host.guest("a").stolen is None
