"""Logs of services: merged by time, safe for a terminal, and nobody waits for a guest that is gone."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from tests.services.shop import HEAD, NGINX, Shop
from vmhost.cli.main import run
from vmhost.model.errors import NotFound
from vmhost.ops import servicelogs
from vmhost.testing.commands import Inside, Ran


def entry(second: float, message: Any, **more: str) -> str:
    return json.dumps(
        {"__REALTIME_TIMESTAMP": str(int(second * 1e6)), "__CURSOR": f"c{second}", "MESSAGE": message, **more}
    )


@pytest.fixture
def shop() -> Shop:
    made = Shop()
    made.deploy()
    for guest, seconds in (("web-01", (1.0, 4.0)), ("web-02", (2.0, 3.0))):
        with made.inside(guest) as system:
            system.land.journal = [entry(second, f"line {second}", SYSLOG_IDENTIFIER="nginx") for second in seconds]
    return made


def test_lines_of_all_guests_are_merged_by_time(shop: Shop) -> None:
    lines = list(shop.services.logs(["nginx"]))
    assert [(line.at, line.guest, line.text) for line in lines] == [
        (1.0, "web-01", "nginx: line 1.0"),
        (2.0, "web-02", "nginx: line 2.0"),
        (3.0, "web-02", "nginx: line 3.0"),
        (4.0, "web-01", "nginx: line 4.0"),
    ]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("\x1b]52;c;x\x07bell", r"\x1b]52;c;x\x07bell"),
        ([0x1B, 0x5B, 0x41, 0xFF], "\\x1b[A\N{REPLACEMENT CHARACTER}"),
        ("two\nlines", "two lines"),
        (None, ""),
        ({"a": 1}, "{'a': 1}"),
    ],
)
def test_whatever_a_service_writes_is_safe_for_a_terminal(shop: Shop, message: Any, text: str) -> None:
    with shop.inside("web-01") as system:
        system.land.journal = [entry(1.0, message)]
    assert [line.text for line in shop.services.logs(["nginx"], guests=["web-01"])] == [text]


def test_lines_that_are_no_journal_are_passed_over(shop: Shop) -> None:
    with shop.inside("web-01") as system:
        system.land.journal = ["", "no json", "[]", '{"MESSAGE": "no time"}', entry(1.0, "good"), '{"cut']
    assert [line.text for line in shop.services.logs(["nginx"], guests=["web-01"])] == ["good"]


@pytest.mark.parametrize("at", ["9" * 30, "9" * 4000, "-5", str(253402300799 * 10**6 + 999_999)])
def test_whatever_time_a_guest_tells_it_can_be_shown(shop: Shop, at: str) -> None:
    with shop.inside("web-01") as system:
        system.land.journal = [json.dumps({"__REALTIME_TIMESTAMP": at, "MESSAGE": "x"})]
    (line,) = shop.services.logs(["nginx"], guests=["web-01"])
    assert datetime.fromtimestamp(line.at, UTC).year in (1970, 9999)


def test_what_is_cut_is_told(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servicelogs, "CAP", 150)
    texts = [(line.guest, line.text) for line in shop.services.logs(["nginx"])]
    assert texts[:2] == [("web-01", "nginx: line 1.0"), ("web-02", "nginx: line 2.0")]
    assert [guest for guest, text in texts[2:] if text.startswith("(cut: ")] == ["web-01", "web-02"]


def test_who_follows_gets_all_that_came_since_the_last_time(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servicelogs, "PAUSE", 0.0)
    monkeypatch.setattr(servicelogs, "SLOW", 60.0)
    real, asked = shop.fake.programs["journalctl"], []

    def journalctl(inside: Inside, arguments: Sequence[str], data: bytes) -> Ran:
        asked.append(tuple(arguments))
        return real(inside, arguments, data)

    shop.fake.programs["journalctl"] = journalctl
    list(islice(shop.services.logs(["nginx"], guests=["web-01"], lines=2, follow=True), 3))
    assert tuple(asked[0][asked[0].index("--lines") :][:2]) == ("--lines", "2")
    assert "--after-cursor" in asked[1]
    assert "--lines" not in asked[1]


def test_a_guest_that_is_gone_is_told_once_and_the_others_go_on(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servicelogs, "PAUSE", 0.0)
    monkeypatch.setattr(servicelogs, "SLOW", 60.0)
    shop.host.power(["web-02"], "power-off")
    lines = list(islice(shop.services.logs(["nginx"], follow=True), 5))
    assert [line.guest for line in lines if line.text.startswith("(not read: ")] == ["web-02"]
    assert [line.guest for line in lines if line.at] == ["web-01"] * 4


def test_a_guest_that_hangs_delays_nobody_and_is_not_asked_again_meanwhile(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servicelogs, "PAUSE", 0.0)
    monkeypatch.setattr(servicelogs, "SLOW", 0.0)
    real, go_on, asked = servicelogs._Reader.read, Event(), []

    def read(reader: servicelogs._Reader) -> list[servicelogs.LogLine]:
        asked.append(reader.item.guest)
        assert reader.item.guest != "web-02" or go_on.wait(60)
        return real(reader)

    monkeypatch.setattr(servicelogs._Reader, "read", read)
    lines = shop.services.logs(["nginx"], follow=True)
    told = [next(lines) for _ in range(8)]
    assert {line.guest for line in told if line.at} == {"web-01"}
    assert ("web-02", "(not read yet)") in [(line.guest, line.text) for line in told]
    assert asked.count("web-02") == 1
    assert asked.count("web-01") > 1
    go_on.set()
    assert next(line for line in lines if line.guest == "web-02").text == "nginx: line 2.0"


def test_who_leaves_a_log_waits_for_no_guest(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, asked = Event(), Event()

    def hangs(_: servicelogs._Reader) -> list[servicelogs.LogLine]:
        asked.set()
        assert go_on.wait(60)
        return []

    monkeypatch.setattr(servicelogs._Reader, "read", hangs)
    assert list(shop.services.logs(["nginx"], follow=True, cancelled=asked.is_set)) == []
    go_on.set()


def test_an_unknown_service_is_told_with_the_nearest(shop: Shop) -> None:
    with pytest.raises(NotFound, match="there is no such service; did you mean nginx"):
        shop.services.list(["ngnix"])
    with pytest.raises(NotFound, match="there is no such guest; did you mean web-01"):
        shop.services.list(guests=["web-011"])


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Type a command on the demonstration's host; gives exit code, stdout and stderr."""
    monkeypatch.setenv("VMHOST_FAKE_STATE", str(tmp_path / "host.json"))
    site = tmp_path / "site.yaml"
    site.write_text(HEAD + NGINX)

    def type_in(*words: str) -> tuple[int, str, str]:
        code = run(["-c", "fake:demo", "service", *(str(site) if word == "SITE" else word for word in words)])
        sys.stdout.flush()
        return (code, *capsys.readouterr())

    return type_in


def test_the_command_line_from_the_first_plan_to_a_failing_check(typed: Any) -> None:
    assert typed("list")[:2] == (0, "SERVICE  GUEST  VERSION  ENV  UNIT  STATE  HEALTH  DRIFT  SINCE\n")
    code, out, _ = typed("deploy", "SITE", "--only", "nginx", "--dry-run", "-o", "json")
    assert code == 0
    kinds = [step["kind"] for step in json.loads(out)["data"]["items"][0]["steps"]]
    assert kinds[:2] == ["refresh-packages", "install-packages"]
    assert typed("deploy", "SITE")[0] == 2, "nobody can be asked"
    assert typed("deploy", "SITE", "--yes")[0] == 0
    assert json.loads(typed("list", "-o", "json")[1])["data"][0]["health"] == "up"
    assert typed("list", "-o", "name")[1] == "nginx\n"
    assert re.search(r"nginx +web-02 +unit +good", typed("check")[1])
    assert typed("stop", "nginx", "--guest", "web-02", "--yes")[0] == 0
    code, out, _ = typed("check", "nginx", "--count", "2")
    assert code == 7
    assert re.search(r"nginx +web-02 +port-80 +2 of 2 bad .*connection refused", out)
    assert typed("check", "-o", "name")[1] == "nginx\n"
    assert typed("restart", "ngnix")[0] == 3
    assert typed("roll", "nginx")[0] == 2
    code, out, told = typed("roll", "nginx", "--to", "1.26", "--max-unavailable", "2", "--yes")
    assert code == 0
    assert 'version: "1.26"' in out
    assert "nginx in web-01: rolled" in told
    assert typed("roll", "nginx", "--back", "--dry-run")[0] == 0
    assert typed("roll", "nginx", "--back", "--yes")[0] == 0
    assert {row["version"] for row in json.loads(typed("list", "-o", "json")[1])["data"]} == {"1.22"}
