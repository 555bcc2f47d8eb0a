"""Deploying into guests of a fake host: everything there, nothing twice, and nothing left when something fails."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.services.shop import NGINX, Shop, site
from vmhost.engine.services import carry
from vmhost.engine.services.line import Lines
from vmhost.model.errors import ApplyError, Cancelled, Conflict, DriverError, GuestError, NotFound, Refused, SpecError
from vmhost.model.events import Event, StepStarted
from vmhost.model.guestops import GuestOp
from vmhost.model.services import Health
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


def test_what_fails_at_any_step_leaves_the_guest_as_it_was(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step of a first deployment fails once."""
    before = shop.picture("web-01")
    steps = shop.services.plan_deploy(site(WHOLE)).items[0].plan.steps
    assert len(steps) == 19
    for number, step in enumerate(steps):
        _fail_at(step.do, monkeypatch)
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


def test_what_fails_at_any_step_of_a_change_leaves_the_guest_as_it_was(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
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
        _fail_at(step.do, monkeypatch)
        with pytest.raises(ApplyError):
            shop.deploy(changed)
        assert shop.picture("web-01") == before, step.why
        monkeypatch.undo()
    assert shop.services.list(guests=["web-01"])[0].version == "1.22"
    shop.deploy(changed)
    assert {row.version for row in shop.services.list()} == {"1.26"}


def _fail_at(wanted: GuestOp, monkeypatch: pytest.MonkeyPatch) -> None:
    original = carry.do

    def failing(guest: str, op: GuestOp, lines: Lines) -> None:
        if op == wanted:
            raise DriverError("it fails")
        original(guest, op, lines)

    monkeypatch.setattr(carry, "do", failing)


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


def test_a_service_that_lost_a_file_removes_it(shop: Shop) -> None:
    shop.deploy()
    shop.deploy(NGINX.replace("conf.d/shop.conf", "conf.d/other.conf"))
    assert "/etc/nginx/conf.d/shop.conf" not in shop.picture("web-01")["files"]
    assert "/etc/nginx/conf.d/other.conf" in shop.picture("web-01")["files"]


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
