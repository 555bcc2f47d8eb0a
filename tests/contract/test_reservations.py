"""What is reserved, over the fake host and a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vmhost.drivers.reservations import FileReservations
from vmhost.model.errors import AlreadyThere, DamagedData, DriverError
from vmhost.model.reservations import Reservation, released
from vmhost.ports import Reservations
from vmhost.testing import FakeHost
from vmhost.testing.host import layout_in

NOW = "2026-03-01T12:00:00Z"
ONE = Reservation("vlan", "1000", "lab", "shop", pool="1000-1999", since=NOW)
TWO = Reservation("vlan", "200", "switch", since=NOW)
ADDRESS = Reservation("address", "10.0.0.5", "web-01", "shop", "br0/100", since=NOW, until="2026-03-01T13:00:00Z")


@pytest.fixture(params=["fake", "file"])
def port(request: pytest.FixtureRequest, tmp_path: Path) -> Reservations:
    return FakeHost().ports.reservations if request.param == "fake" else FileReservations(layout_in(tmp_path))


def test_there_is_nothing_at_first(port: Reservations) -> None:
    assert port.read() == ()
    port.drop([ONE])
    assert port.read() == ()


def test_what_is_kept_is_read_and_what_is_dropped_is_gone(port: Reservations) -> None:
    port.keep([ONE, ADDRESS], NOW)
    port.keep([TWO], NOW)
    assert set(port.read()) == {ONE, TWO, ADDRESS}
    port.keep([released(ONE, NOW)], NOW)
    assert set(port.read()) == {released(ONE, NOW), TWO, ADDRESS}
    port.drop([ONE, ADDRESS])
    assert port.read() == (TWO,)


def test_all_or_none_are_kept(port: Reservations) -> None:
    port.keep([ONE], NOW)
    with pytest.raises(AlreadyThere):
        port.keep([TWO, Reservation("vlan", "1000", "other", "site")], NOW)
    assert port.read() == (ONE,)


def test_what_has_rested_is_forgotten(port: Reservations) -> None:
    port.keep([ADDRESS], NOW)
    port.keep([ONE], "2026-03-01T13:00:00Z")
    assert port.read() == (ONE,)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"version": 9, "sha256": "", "data": {}}',
        '{"version": 1, "sha256": "0", "data": {"reservations": []}}',
    ],
)
def test_a_damaged_file_is_not_taken_for_an_empty_one(tmp_path: Path, text: str) -> None:
    port = FileReservations(layout_in(tmp_path))
    port.keep([ONE], NOW)
    port.file.write_text(text)
    with pytest.raises(DamagedData) as caught:
        port.read()
    assert (caught.value.subject, bool(caught.value.hint)) == (str(port.file), True)
    with pytest.raises(DamagedData):
        port.keep([TWO], NOW)
    assert port.file.read_text() == text


def test_everybody_may_read_it_and_a_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = FileReservations(layout_in(tmp_path))
    port.keep([ONE], NOW)
    assert port.file.stat().st_mode & 0o777 == 0o644
    assert json.loads(port.file.read_text())["version"] == 1

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DriverError, match="no space"):
        port.keep([TWO], NOW)
    monkeypatch.undo()
    assert port.read() == (ONE,)
    assert [path.name for path in port.file.parent.iterdir()] == [port.file.name]
