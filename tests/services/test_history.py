"""What the watch has seen: kept, and what it comes to."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from tests.services.shop import Shop
from tests.services.test_watch import HEALED, Ward, dies
from vmhost.model.errors import NotFound
from vmhost.model.services import KeptLook
from vmhost.plan.latency import histories


def looks(times: list[float | None], *, probe: str = "web", guest: str = "1") -> list[KeptLook]:
    """Looks one after the other; None is a bad one."""
    return [
        KeptLook(guest, "nginx", probe, float(at), one is not None, one or 5.0, "" if one else f"bad at {at}")
        for at, one in enumerate(times)
    ]


def test_percentiles_are_of_good_looks_and_by_nearest_rank() -> None:
    (one,) = histories(looks([number / 100 for number in range(1, 101)]), {"1": "web-01"})
    assert (one.median, one.tail, one.most) == (0.505, 0.95, 1.0)
    (one,) = histories(looks([0.2, None, 0.1, None, 0.3]), {"1": "web-01"})
    assert (one.looks, one.bad, one.median, one.tail, one.most) == (5, 2, 0.2, 0.3, 0.3)
    assert (one.last_bad, one.text, one.latest) == (3.0, "bad at 3", (0.2, None, 0.1, None, 0.3))


def test_without_a_good_look_there_is_no_latency() -> None:
    (one,) = histories(looks([None, None]), {"1": "web-01"})
    assert (one.median, one.tail, one.most, one.bad) == (None, None, None, 2)
    (one,) = histories(looks([0.5]), {"1": "web-01"})
    assert (one.median, one.tail, one.most, one.last_bad) == (0.5, 0.5, 0.5, None)


def test_probes_are_told_apart_and_guests_that_are_gone_are_left_out() -> None:
    kept = [*looks([1.0]), *looks([2.0], guest="2"), *looks([3.0], guest="gone"), *looks([4.0], probe="unit")]
    found = list(histories(kept, {"1": "web-02", "2": "web-01"}))
    assert [(one.guest, one.probe, one.median) for one in found] == [
        ("web-01", "web", 2.0),
        ("web-02", "unit", 4.0),
        ("web-02", "web", 1.0),
    ]


def test_the_watch_keeps_what_it_sees_and_a_later_one_goes_on() -> None:
    shop = Shop()
    shop.deploy(HEALED)
    assert shop.services.history() == ()
    Ward(shop).pass_seconds(10)
    dies(shop)
    second = Ward(shop)
    second.pass_seconds(20)
    unit, web = shop.services.history(["nginx"])
    assert (unit.probe, web.probe) == ("unit", "web")
    assert unit.bad == 5, "three in the start period of the second watch, and two that count"
    assert unit.text == "nginx.service is failed (failed, signal)"
    assert 13 <= unit.looks <= 17
    assert shop.services.history(guests=["web-02"]) == ()
    with pytest.raises(NotFound):
        shop.services.history(["ngin"])


def test_it_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    from vmhost.cli import service

    shop = Shop()
    shop.deploy(HEALED)
    Ward(shop).pass_seconds(10)
    monkeypatch.setattr(service, "open_host", lambda _: shop.host)
    done = CliRunner().invoke(service.check, ["--history"])
    assert done.exit_code == 0, done.output
    head, unit, web = done.output.splitlines()
    assert head.split()[:8] == ["SERVICE", "GUEST", "PROBE", "LOOKS", "BAD", "MEDIAN", "95TH", "MOST"]
    assert unit.split()[:5] == ["nginx", "web-01", "unit", "5", "0"]
    assert web.split()[2] == "web"
    told = json.loads(CliRunner().invoke(service.check, ["--history", "-o", "json"]).output)
    assert told["kind"] == "ServiceHistory"
