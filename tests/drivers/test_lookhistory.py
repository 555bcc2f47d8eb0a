"""Looks of probes in SQLite: kept over processes, bounded, and never in the way."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from vmhost.drivers.lookhistory import KEPT_SECONDS, LookHistory
from vmhost.model.services import KeptLook


def look(at: float, probe: str = "web", guest: str = "uuid", *, good: bool = True, text: str = "") -> KeptLook:
    return KeptLook(guest, "nginx", probe, at, good, 0.1, text)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "looks.sqlite3"


def test_what_one_process_keeps_another_reads(path: Path) -> None:
    looks = [look(1.0), look(2.0, good=False, text="status 503"), look(3.0, probe="unit")]
    first = LookHistory(path)
    first.add(looks)
    assert sorted(LookHistory(path).read(), key=lambda one: one.at) == looks
    first.close()
    first.add([look(4.0)])
    assert len(first.read()) == 4


def test_one_service_is_read_alone(path: Path) -> None:
    history = LookHistory(path)
    other = KeptLook("uuid", "other", "web", 2.0, good=True, seconds=0.1, text="")
    history.add([look(2.0), look(1.0, probe="unit"), look(3.0, guest="else"), other, look(4.0)])
    assert history.read("uuid", "nginx") == (look(1.0, probe="unit"), look(2.0), look(4.0))
    assert history.read("uuid", "other") == (other,)
    assert history.read("uuid", "ngin") == ()


def test_nothing_was_kept_yet(path: Path) -> None:
    assert LookHistory(path).read() == ()
    assert not path.exists()


def test_the_newest_of_each_probe_stay(path: Path) -> None:
    history = LookHistory(path, kept=5)
    history.add([look(float(number)) for number in range(12)])
    history.add([look(100.0, probe="unit")])
    history.add([look(12.0)])
    assert [one.at for one in history.read() if one.probe == "web"] == [8.0, 9.0, 10.0, 11.0, 12.0]
    assert [one.at for one in history.read() if one.probe == "unit"] == [100.0]


def test_what_is_no_longer_looked_at_goes_in_time(path: Path) -> None:
    history = LookHistory(path)
    history.add([look(1.0, guest="gone"), look(2.0)])
    history.add([look(1.5 + KEPT_SECONDS)])
    assert [one.at for one in history.read()] == [2.0, 1.5 + KEPT_SECONDS]


def test_several_watches_at_once_lose_nothing(path: Path) -> None:
    def keep(guest: str) -> None:
        history = LookHistory(path)
        for number in range(20):
            history.add([look(float(number), guest=guest), look(float(number), guest="both")])

    threads = [threading.Thread(target=keep, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = LookHistory(path).read()
    assert {name: sum(one.guest == name for one in kept) for name in ("a", "b", "c", "both")} == {
        **dict.fromkeys("abc", 20),
        "both": 60,
    }


def test_a_file_that_cannot_be_written_stops_nothing(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.mkdir()
    LookHistory(path).add([look(1.0)])
    assert "history of probes" in caplog.text


def test_the_last_look_of_each_probe_is_read_without_the_others(path: Path) -> None:
    history = LookHistory(path)
    assert history.last(0.0) == ()
    history.add([look(1.0, "old"), look(7.0, good=False, text="status 503"), look(8.0, "unit"), look(9.0)])
    history.add([look(5.0, guest="else"), look(6.0, "unit", good=False, text="failed")])  # the clock was put back
    assert history.last(5.0) == (
        look(5.0, guest="else"),
        look(6.0, "unit", good=False, text="failed"),
        look(9.0),
    )
    assert [one.probe for one in history.last(0.0) if one.guest == "uuid"] == ["old", "unit", "web"]
