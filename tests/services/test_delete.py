"""Taking a service out of its guests: what goes, what stays, and what a failure leaves."""

from __future__ import annotations

import pytest

from tests.services.shop import NGINX, Shop, site
from tests.services.test_deploy import SECRET, WHOLE, fail_at
from vmhost.engine.services import carry
from vmhost.engine.services.line import Lines
from vmhost.model.errors import ApplyError, DriverError, NotFound, PartlyDone, Refused, Unreachable
from vmhost.model.guestops import GuestOp
from vmhost.model.services import Rolling

NEW = NGINX.replace("1.22.1-9", "1.26.3-1").replace('"1.22"', '"1.26"')


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("APP_TOKEN", SECRET)
    return Shop()


def test_its_unit_and_files_go_and_what_others_may_use_stays(shop: Shop) -> None:
    shop.deploy(WHOLE)
    plan = shop.services.plan_delete("app")
    assert SECRET not in str(plan)
    lines = plan.lines(satisfied=True)
    assert any("unit app.service: stop" in line for line in lines)
    assert "  -  group shop: stays" in lines
    before = shop.picture("web-01")
    shop.services.deploy(plan)
    after = shop.picture("web-01")
    assert after["units"]["app.service"] == (False, "disabled")
    assert not [path for path in after["files"] if "app" in path]
    assert (after["users"], after["groups"], after["packages"]) == (
        before["users"],
        before["groups"],
        before["packages"],
    )
    assert shop.services.find() == ()
    assert next((job.kind, job.state) for job in shop.host.jobs()) == ("service delete", "done")
    with pytest.raises(NotFound):
        shop.services.plan_delete("app")
    shop.deploy(WHOLE)
    assert shop.picture("web-01") == before


def test_what_fails_at_any_step_leaves_the_service_as_it_was(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.deploy(WHOLE)
    before = shop.picture("web-01")
    steps = shop.services.plan_delete("app").items[0].plan.steps
    assert len(steps) >= 6
    for step in steps:
        fail_at(step.do, monkeypatch, done=True)
        with pytest.raises(ApplyError) as caught:
            shop.services.deploy(shop.services.plan_delete("app"))
        assert caught.value.leftovers == ()
        monkeypatch.undo()
        monkeypatch.setenv("APP_TOKEN", SECRET)
        assert shop.picture("web-01") == before, step.why
        assert [item.deployed.name for item in shop.services.find()] == ["app"]


def test_in_one_guest_only_and_also_where_its_manifest_is_lost(shop: Shop) -> None:
    shop.deploy(NGINX)
    with shop.inside("web-02") as system:
        del system.files["/var/lib/vmhost/services/nginx.json"]
    shop.services.deploy(shop.services.plan_delete("nginx", guests=["web-02"]))
    assert "/etc/nginx/conf.d/shop.conf" not in shop.picture("web-02")["files"]
    assert [item.guest for item in shop.services.find()] == ["web-01"]


def test_what_was_kept_for_the_way_back_goes_and_a_roll_under_way_comes_first(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.deploy(NGINX)
    plan = shop.services.plan_roll("nginx", Rolling(), site=site(NEW))
    original = carry.do

    def failing(guest: str, op: GuestOp, lines: Lines) -> None:
        if guest == "web-02":
            raise DriverError("it fails")
        original(guest, op, lines)

    monkeypatch.setattr(carry, "do", failing)
    with pytest.raises(PartlyDone, match="halted"):
        shop.services.roll(plan)
    monkeypatch.setattr(carry, "do", original)
    with pytest.raises(Refused, match="a roll is under way there"):
        shop.services.plan_delete("nginx")
    shop.services.roll(shop.services.plan_roll("nginx", Rolling(), site=site(NEW)))
    shop.services.deploy(shop.services.plan_delete("nginx"))
    assert not [path for path in shop.picture("web-01")["files"] if "vmhost/services" in path]


def test_a_guest_that_does_not_run_is_told_before_anything_is_done(shop: Shop) -> None:
    shop.deploy(NGINX)
    shop.host.power(["web-02"], "power-off")
    plan = shop.services.plan_delete("nginx")
    with pytest.raises(Unreachable, match="does not run"):
        shop.services.deploy(plan)
    assert {item.guest for item in shop.services.find()} == {"web-01", "web-02"}
