"""Deploying into guests of a fake host: everything there, nothing twice, and nothing left when something fails."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.services.shop import NGINX, Shop, site
from vmhost.engine.services import carry
from vmhost.engine.services.line import Lines
from vmhost.model.errors import (
    ApplyError,
    Cancelled,
    Conflict,
    DriverError,
    GuestError,
    NotFound,
    Refused,
    SpecError,
    Unreachable,
)
from vmhost.model.events import Event, StepDone, StepStarted
from vmhost.model.guestops import ActOnUnit, GuestOp, Verb
from vmhost.model.services import GuestFacts, Health, UnitFact
from vmhost.model.spec.service import ServiceState, UnitSpec
from vmhost.plan.settling import settling
from vmhost.render.service import Desired
from vmhost.testing.commands import Inside, Ran
from vmhost.testing.world import FakeUnit

WHOLE = """
services:
  app:
    version: 3.1~rc2
    env: test
    guests: [web-01]
    packages: [curl]
    groups: [shop]
    users: [{name: app, group: shop, home: /srv/app}]
    directories: [{path: /srv/app, mode: "0750", owner: "app:shop"}]
    sysctl: {net.core.somaxconn: 8192}
    environment: {MODE: "fast $HOME \\"x\\"", TOKEN: {env: APP_TOKEN}}
    vars: {port: 8080}
    files:
      - {path: /srv/app/conf, content: "{{ guest.name }} {{ guest.address }} {{ vars.port }}\\n", template: true}
      - {path: /srv/app/key, secret: {env: APP_TOKEN}, mode: "0400", owner: "app:shop"}
    unit:
      name: app
      content: |
        [Service]
        ExecStart=/srv/app/run
    probes: {unit: {systemd: true}}
"""
SECRET = "canary-77aa"


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("APP_TOKEN", SECRET)
    return Shop()


def test_everything_of_a_service_is_there(shop: Shop) -> None:
    shop.deploy(WHOLE)
    now = shop.picture("web-01")
    assert now["files"]["/srv/app/conf"] == b"web-01 10.20.0.11 8080\n"
    assert now["files"]["/etc/vmhost/env/app.env"] == f'MODE="fast \\$HOME \\"x\\""\nTOKEN="{SECRET}"\n'.encode()
    assert now["access"]["/etc/vmhost/env/app.env"] == "0600 root:root"
    assert now["access"]["/srv/app/key"] == "0400 app:shop"
    assert now["files"]["/etc/sysctl.d/60-vmhost-app.conf"] == b"net.core.somaxconn = 8192\n"
    assert now["sysctl"]["/proc/sys/net/core/somaxconn"] == "8192"
    assert now["users"]["app"].endswith("::/srv/app:/usr/sbin/nologin")
    assert "shop" in now["groups"]
    assert now["units"]["app.service"] == (True, "enabled")
    (row,) = shop.services.list()
    assert (row.version, row.env, row.health, row.drift) == ("3.1~rc2", "test", Health.UP, ())


def test_a_second_time_there_is_nothing_to_do_and_it_says_why(shop: Shop) -> None:
    shop.deploy(WHOLE)
    again = shop.services.plan_deploy(site(WHOLE))
    assert again.empty
    assert str(again) == "shop: nothing to do"
    assert len(again.items[0].plan.satisfied) == 14
    assert shop.services.deploy(again) == ()


def test_a_secret_is_in_no_plan_history_or_metadata(shop: Shop) -> None:
    told: list[Event] = []
    deployment = shop.services.plan_deploy(site(WHOLE))
    shop.services.deploy(deployment, on_event=told.append)
    jobs = [line for job in shop.host.jobs() for line in shop.host.job_log(job.id)]
    for text in (str(deployment), repr(deployment), str(told), str(jobs), shop.fake.domain("web-01").xml):
        assert SECRET not in text
    assert "app" in shop.fake.domain("web-01").xml
    assert SECRET.encode() not in shop.picture("web-01")["files"]["/var/lib/vmhost/services/app.json"]


def test_a_changed_secret_is_found_and_told_without_a_word_of_it(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.deploy(WHOLE)
    with shop.inside("web-01") as system:
        system.files["/srv/app/key"] = b"another"
    (row,) = shop.services.list()
    assert [str(item) for item in row.drift] == [
        "web-01: app: file /srv/app/key: content is something else, should be the secret"
    ]
    monkeypatch.setenv("APP_TOKEN", "canary-new")
    steps = shop.services.plan_deploy(site(WHOLE)).items[0].plan.steps
    assert [step.why for step in steps][:2] == [
        "change file /etc/vmhost/env/app.env (secret, not shown)",
        "change file /srv/app/key (secret, not shown)",
    ]
    assert all(not step.shown for step in steps)


@pytest.mark.parametrize("done", [False, True], ids=["nothing was done", "all was done"])
def test_what_fails_at_any_step_leaves_the_guest_as_it_was(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    """Every step of a first deployment fails once."""
    before = shop.picture("web-01")
    steps = shop.services.plan_deploy(site(WHOLE)).items[0].plan.steps
    assert len(steps) == 19
    for number, step in enumerate(steps):
        fail_at(step.do, monkeypatch, done=done)
        with pytest.raises(ApplyError) as caught:
            shop.deploy(WHOLE)
        assert caught.value.leftovers == ()
        now = shop.picture("web-01")
        # Packages that brought nothing, and units without their file, are all that a fake system keeps.
        now["units"].pop("app.service", None)
        assert now == before, f"step {number + 1}: {step.why}"
        assert shop.services.find() == ()
        monkeypatch.undo()
        monkeypatch.setenv("APP_TOKEN", SECRET)
    shop.deploy(WHOLE)


@pytest.mark.parametrize("done", [False, True], ids=["nothing was done", "all was done"])
def test_what_fails_at_any_step_of_a_change_leaves_the_guest_as_it_was(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    shop.deploy()
    changed = NGINX.replace("1.22.1-9", "1.26.3-1").replace("listen 80", "listen 81").replace('"1.22"', '"1.26"')
    before = shop.picture("web-01")
    steps = shop.services.plan_deploy(site(changed)).items[0].plan.steps
    assert [step.do.kind for step in steps] == [
        "refresh-packages",
        "install-packages",
        "put-file",
        "act-on-unit",
        "put-file",
    ]
    for step in steps:
        fail_at(step.do, monkeypatch, done=done)
        with pytest.raises(ApplyError) as caught:
            shop.deploy(changed)
        assert caught.value.leftovers == ()
        assert shop.picture("web-01") == before, step.why
        monkeypatch.undo()
    assert shop.services.list(guests=["web-01"])[0].version == "1.22"
    shop.deploy(changed)
    assert {row.version for row in shop.services.list()} == {"1.26"}


def fail_at(wanted: GuestOp, monkeypatch: pytest.MonkeyPatch, *, done: bool, dead: bool = False) -> None:
    """It fails once, before or after it was ``done``; ``dead``: nothing else gets through afterwards."""
    original, failed = carry.do, False

    def failing(guest: str, op: GuestOp, lines: Lines) -> None:
        nonlocal failed
        if failed and dead:
            raise Unreachable("no answer")
        if failed or op != wanted:
            original(guest, op, lines)
            return
        failed = True
        if done:
            original(guest, op, lines)
        raise Unreachable("the connection ended") if done else DriverError("it fails")

    monkeypatch.setattr(carry, "do", failing)


def test_what_cannot_be_undone_is_left_over_by_name_the_failed_step_first(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.deploy()
    changed = NGINX.replace("listen 80", "listen 81")
    put = shop.services.plan_deploy(site(changed)).items[0].plan.steps[0].do
    assert put.kind == "put-file"
    fail_at(put, monkeypatch, done=True, dead=True)
    with pytest.raises(ApplyError) as caught:
        shop.deploy(changed)
    (left,) = caught.value.leftovers
    assert left.startswith(
        "nginx: change file /etc/nginx/conf.d/shop.conf: vmhost-put /etc/nginx/conf.d/shop.conf 0644"
    )
    assert caught.value.undone == ()
    assert shop.picture("web-01")["files"]["/etc/nginx/conf.d/shop.conf"] == b"server { listen 81; }\n"


def test_a_broken_check_stops_at_the_first_guest(shop: Shop) -> None:
    shop.deploy()
    broken = NGINX.replace("listen 80; }", "broken }").replace("after: reload", 'check: [nginx, -t, "{file}"]')
    with pytest.raises(ApplyError, match=r"the check of /etc/nginx/conf.d/shop.conf failed, the old file stays"):
        shop.deploy(broken)
    for guest in ("web-01", "web-02"):
        assert shop.picture(guest)["files"]["/etc/nginx/conf.d/shop.conf"] == b"server { listen 80; }\n"


def test_what_is_not_ready_is_reported_and_stays(shop: Shop) -> None:
    dead = NGINX.replace("ports: [80]", "ports: [81]")
    with pytest.raises(GuestError, match=r"nginx is not ready after 40 s: port-81: connection refused"):
        shop.deploy(dead)
    assert "nginx" in shop.picture("web-01")["packages"]
    assert shop.picture("web-02")["packages"] == {}, "the next guest was not touched"


def test_a_full_disk_leaves_the_old_file(shop: Shop) -> None:
    shop.deploy()
    with shop.inside("web-01") as system:
        system.land.full = True
    with pytest.raises(ApplyError, match="No space left on device"):
        shop.deploy(NGINX.replace("listen 80", "listen 82"))
    assert shop.picture("web-01")["files"]["/etc/nginx/conf.d/shop.conf"] == b"server { listen 80; }\n"


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (("nginx=1.22.1-9", "ngimx"), ApplyError, "Unable to locate package ngimx"),
        (("nginx=1.22.1-9", "nginx=9"), ApplyError, "'9' for 'nginx' was not found"),
        (("    packages: [nginx=1.22.1-9]\n", ""), Refused, "there is no unit nginx.service in the guest"),
        (("/etc/nginx/conf.d/shop.conf", "/srv"), Refused, "/srv is a directory, not a file"),
        (("    ports", "    sysctl: {no.such: 1}\n    ports"), Refused, "kernel has no parameter no.such"),
        (("[web-01, web-02]", "[mail-01]"), SpecError, "there is no guest 'mail-01'"),
    ],
)
def test_what_cannot_be(shop: Shop, change: tuple[str, str], error: type[Exception], words: str) -> None:
    for guest in ("web-01", "web-02"):
        with shop.inside(guest) as system:
            system.land.directories.append("/srv")
    before = shop.picture("web-01")
    with pytest.raises(error) as caught:
        shop.deploy(NGINX.replace(*change))
    assert words in str(caught.value)
    assert shop.picture("web-01") == before


def test_what_cannot_be_any_more_is_refused_and_not_noted_as_done(shop: Shop) -> None:
    plan = shop.services.plan_deploy(site())
    with shop.inside("web-01") as system:
        system.land.directories.append("/etc/nginx/conf.d/shop.conf")
    with pytest.raises(Refused, match="is a directory, not a file"):
        shop.services.deploy(plan)
    assert shop.services.find() == ()


def test_what_is_to_be_stopped_is_not_probed_by_its_ports(shop: Shop) -> None:
    shop.deploy(NGINX.replace("unit: nginx", "unit: {name: nginx, state: stopped}"))
    assert {(row.health, row.looks) for row in shop.services.list()} == {(Health.UNKNOWN, ())}


def test_a_guest_that_changed_meanwhile_is_refused(shop: Shop) -> None:
    deployment = shop.services.plan_deploy(site())
    with shop.inside("web-01") as system:
        system.files["/etc/nginx/conf.d/shop.conf"] = b"by hand\n"
    with pytest.raises(Conflict, match=r"the guest changed since the plan was shown"):
        shop.services.deploy(deployment)
    assert shop.picture("web-01")["packages"] == {}


def test_cancelled_in_the_middle_everything_is_undone(shop: Shop) -> None:
    before = shop.picture("web-01")
    seen: list[Event] = []

    def enough() -> bool:
        return sum(isinstance(event, StepStarted) for event in seen) >= 4

    with pytest.raises(Cancelled):
        shop.deploy(on_event=seen.append, cancelled=enough)
    assert shop.picture("web-01") == before


@pytest.mark.parametrize("active", [True, False])
def test_cancelled_before_its_unit_was_touched_the_unit_is_left_alone(shop: Shop, active: bool) -> None:
    shop.deploy()
    with shop.inside("web-01") as system:
        system.land.units["nginx.service"].active = active
        starts = system.land.units["nginx.service"].starts
    changed = NGINX.replace("listen 80", "listen 81").replace("after: reload", "after: restart")
    told: list[Event] = []

    def enough() -> bool:
        return any(isinstance(event, StepStarted) and "unit nginx.service: " in event.why for event in told)

    verbs = seen_verbs(shop)
    with pytest.raises(Cancelled):
        shop.deploy(changed, on_event=told.append, cancelled=enough)
    assert verbs == []
    with shop.inside("web-01") as system:
        assert (system.land.units["nginx.service"].active, system.land.units["nginx.service"].starts) == (
            active,
            starts,
        )


def seen_verbs(shop: Shop) -> list[str]:
    """What is done with units from now on."""
    real, verbs = shop.fake.programs["systemctl"], []

    def systemctl(inside: Inside, arguments: Sequence[str], data: bytes) -> Ran:
        verb = next(word for word in arguments if not word.startswith("-"))
        if verb != "show":
            units = arguments[arguments.index("--") + 1 :] if "--" in arguments else ()
            verbs.append(" ".join((verb, *units)))
        return real(inside, arguments, data)

    shop.fake.programs["systemctl"] = systemctl
    return verbs


def test_what_was_only_reloaded_is_only_reloaded_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.deploy()
    changed = NGINX.replace("listen 80", "listen 81")
    note = shop.services.plan_deploy(site(changed)).items[0].plan.steps[-1].do
    fail_at(note, monkeypatch, done=False)
    verbs = seen_verbs(shop)
    with pytest.raises(ApplyError):
        shop.deploy(changed)
    assert verbs == ["reload-or-restart nginx.service"] * 2


def test_a_unit_that_cannot_be_enabled_is_not_restarted(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.deploy()
    with shop.inside("web-01") as system:
        system.land.units["nginx.service"].enabled = "disabled"
    enable = shop.services.plan_deploy(site()).items[0].plan.steps[0].do
    fail_at(enable, monkeypatch, done=False)
    verbs = seen_verbs(shop)
    with pytest.raises(ApplyError):
        shop.deploy()
    assert verbs == ["disable nginx.service"]


@pytest.mark.parametrize(
    ("active", "begun", "last"),
    [
        ("active", ["start"], ["restart"]),
        ("reloading", ["reload-or-restart"], ["reload-or-restart"]),
        ("activating", ["restart"], ["restart"]),
        ("activating", ["enable"], []),
        ("inactive", ["start"], ["stop"]),
        ("failed", ["start"], ["stop"]),
        ("deactivating", ["start"], []),
        ("active", ["enable", "stop"], ["restart"]),
    ],
)
def test_how_a_unit_gets_its_former_state_back(active: str, begun: list[Verb], last: list[Verb]) -> None:
    name = "app.service"
    wanted = Desired(ServiceState(name="app", version="1", env="test", unit=UnitSpec(name=name)), {})
    facts = GuestFacts(units={name: UnitFact(name, "loaded", active)})
    ops = settling([ActOnUnit(name, verb) for verb in begun], wanted, facts)
    assert ops == tuple(ActOnUnit(name, verb) for verb in last)
    assert settling([ActOnUnit("other.service", verb) for verb in begun], wanted, facts) == ()


def test_a_service_that_lost_a_file_removes_it(shop: Shop) -> None:
    shop.deploy()
    shop.deploy(NGINX.replace("conf.d/shop.conf", "conf.d/other.conf"))
    assert "/etc/nginx/conf.d/shop.conf" not in shop.picture("web-01")["files"]
    assert "/etc/nginx/conf.d/other.conf" in shop.picture("web-01")["files"]


def test_a_symbolic_link_in_place_of_a_file_is_put_back(shop: Shop) -> None:
    """A package of Debian's brings one: sites-enabled/default."""
    path = "/etc/nginx/conf.d/shop.conf"
    with shop.inside("web-01") as system:
        system.land.links[path] = "../sites-available/two words"
    with pytest.raises(ApplyError):
        shop.deploy(NGINX + '      - {path: /srv/x, content: broken, check: [test, -s, "{file}"]}\n')
    with shop.inside("web-01") as system:
        assert system.land.links == {path: "../sites-available/two words"}
        assert path not in system.files
    shop.deploy()
    with shop.inside("web-01") as system:
        assert system.land.links == {}
        assert system.files[path] == b"server { listen 80; }\n"


OTHER = WHOLE.replace("      name: app\n", "      name: other\n")


def test_a_unit_with_another_name_takes_the_place_of_the_former_one(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.deploy(WHOLE)
    before = shop.picture("web-01")
    steps = shop.services.plan_deploy(site(OTHER)).items[0].plan.steps
    for step in steps:
        fail_at(step.do, monkeypatch, done=False)
        with pytest.raises(ApplyError) as caught:
            shop.deploy(OTHER)
        assert caught.value.leftovers == ()
        now = shop.picture("web-01")
        now["units"].pop("other.service", None)  # a fake system keeps units without their file
        assert now == before, step.why
        monkeypatch.undo()
        monkeypatch.setenv("APP_TOKEN", SECRET)
    shop.deploy(OTHER)
    now = shop.picture("web-01")
    assert now["units"]["app.service"] == (False, "disabled")
    assert now["units"]["other.service"] == (True, "enabled")
    assert "/etc/systemd/system/app.service" not in now["files"]


@pytest.mark.parametrize(
    "change",
    [
        (", TOKEN: {env: APP_TOKEN}", ""),
        ("{path: /srv/app/key, secret: {env: APP_TOKEN}", '{path: /srv/app/key, content: "open"'),
        ('      - {path: /srv/app/key, secret: {env: APP_TOKEN}, mode: "0400", owner: "app:shop"}\n', ""),
    ],
    ids=["one variable less", "a secret becomes a text", "a secret goes"],
)
def test_what_was_secret_is_not_shown_when_it_is_so_no_more(shop: Shop, change: tuple[str, str]) -> None:
    shop.deploy(WHOLE)
    changed = WHOLE.replace(*change)
    assert changed != WHOLE
    deployment = shop.services.plan_deploy(site(changed))
    assert not deployment.empty
    assert SECRET not in str(deployment)


def test_a_file_of_others_that_not_everybody_may_read_is_not_shown(shop: Shop) -> None:
    with shop.inside("web-01") as system:
        system.files["/etc/nginx/conf.d/shop.conf"] = SECRET.encode()
        system.land.access["/etc/nginx/conf.d/shop.conf"] = "0640 root:root"
    told = str(shop.services.plan_deploy(site()))
    assert SECRET not in told
    assert "change file /etc/nginx/conf.d/shop.conf (secret, not shown)" in told


def test_a_closed_file_is_shown_as_it_was_deployed_and_not_as_somebody_changed_it(shop: Shop) -> None:
    closed = NGINX.replace("after: reload", 'after: reload, mode: "0600"')
    shop.deploy(closed)
    changed = site(closed.replace("listen 80", "listen 81"))
    assert "-server { listen 80; }" in str(shop.services.plan_deploy(changed))
    with shop.inside("web-01") as system:
        system.files["/etc/nginx/conf.d/shop.conf"] = SECRET.encode()
    assert SECRET not in str(shop.services.plan_deploy(changed))


def test_the_first_that_fails_ends_it_for_all_that_follow(shop: Shop) -> None:
    three = NGINX.replace("[web-01, web-02]", "[web-01, web-02, cache-01]")
    shop.deploy(three)
    with shop.inside("cache-01") as system:
        system.land.units["nginx.service"].broken = True
    results = shop.services.act(["nginx"], "restart")
    assert [(result.guest, result.text) for result in results][1:] == [("web-01", "not tried"), ("web-02", "not tried")]
    assert results[0].error is not None
    (job,) = [job for job in shop.host.jobs() if job.kind == "service restart"]
    assert job.state == "failed"
    assert "Job for nginx.service failed" in job.error


def test_a_person_who_gives_up_leaves_what_is_not_done_yet_alone(shop: Shop) -> None:
    shop.deploy()
    told: list[Event] = []

    def after_the_first() -> bool:
        return any(isinstance(event, StepDone) for event in told)

    results = shop.services.act(["nginx"], "stop", on_event=told.append, cancelled=after_the_first)
    assert [result.text for result in results] == ["stopped", "cancelled"]
    assert isinstance(results[1].error, Cancelled)
    assert [shop.picture(guest)["units"]["nginx.service"][0] for guest in ("web-01", "web-02")] == [False, True]
    (job,) = [job for job in shop.host.jobs() if job.kind == "service stop"]
    assert job.state == "cancelled"


def test_guests_of_others_and_guests_to_come_are_refused(shop: Shop) -> None:
    with pytest.raises(NotFound, match="no such service; it has nginx"):
        shop.services.plan_deploy(site(), only=["ngnix"])
    shop.host.power(["web-02"], "stop")
    with pytest.raises(DriverError, match=r"web-02: the guest does not run"):
        shop.deploy()
    assert shop.picture("web-01")["packages"] == {}, "nothing was done: the plan was not whole"


@pytest.mark.parametrize("words", [("a b", "c;d"), ("$(x)", "`y`"), ("'", '"'), ("line\nbreak", "tab\t"), ("-n", "--")])
def test_arguments_arrive_as_they_are_written(shop: Shop, words: Sequence[str]) -> None:
    seen: list[Sequence[str]] = []

    def program(inside: Inside, arguments: Sequence[str], _: bytes) -> Ran:
        seen.append(tuple(arguments))
        return Ran()

    shop.fake.programs["probe"] = program
    shop.deploy(NGINX.replace("[web-01, web-02]", "[web-01]"))
    import json

    text = NGINX.replace("[web-01, web-02]", "[web-01]")
    text += f"    probes: {{p: {{command: {json.dumps(['probe', *words])}}}}}\n"
    shop.deploy(text)
    assert seen[-1] == tuple(words)


def test_a_unit_that_does_not_start_is_undone(shop: Shop) -> None:
    shop.deploy()
    with shop.inside("web-01") as system:
        system.land.units["nginx.service"] = FakeUnit(active=True, broken=True, ports=[80])
    with pytest.raises(ApplyError, match=r"Job for nginx\.service failed"):
        shop.deploy(NGINX.replace("listen 80", "listen 82").replace("reload", "restart"))
    assert shop.picture("web-01")["files"]["/etc/nginx/conf.d/shop.conf"] == b"server { listen 80; }\n"
