"""Guests that run nowhere: nobody is led to a terminal or to an address of theirs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.cli.session import Terminal
from vmhost.cli.main import run
from vmhost.engine.session import open_session
from vmhost.model.errors import Refused
from vmhost.ops.guests import find_guest
from vmhost.testing.demo import demo_host


@pytest.fixture(autouse=True)
def nothing_real(monkeypatch: pytest.MonkeyPatch) -> None:
    def program(argv: object, **_: object) -> None:
        raise AssertionError(f"a real program is started: {argv}")

    monkeypatch.setattr("vmhost.drivers.command.replace", program)
    monkeypatch.setattr("vmhost.drivers.command.foreground", program)


@pytest.mark.parametrize("words", [("ssh",), ("ssh", "true"), ("console",)], ids=" ".join)
def test_no_terminal_is_opened_on_a_fake_host(terminal: Terminal, words: tuple[str, ...]) -> None:
    what, *command = words
    code, out, told = terminal.run("guest", what, "web-01", *command)
    assert (code, out) == (4, "")
    assert told.splitlines()[0] == "vmhost: web-01: this guest is made up: there is nothing to attach to"


@pytest.mark.parametrize("what", ["ssh", "console"])
def test_no_terminal_is_opened_on_a_simulated_hypervisor(what: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["-c", "test:///default", "guest", what, "test"]) == 4
    assert "this guest is made up: there is nothing to attach to" in capfd.readouterr().err


class Simulated:
    """A fake host's hypervisor that says that it is libvirt's test driver."""

    def __init__(self, hypervisor: Any) -> None:
        self._hypervisor = hypervisor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hypervisor, name)

    def daemon(self) -> Any:
        return replace(self._hypervisor.daemon(), driver="Test")


def test_no_address_of_a_simulated_guest_of_ours_is_called() -> None:
    """Somebody has given it our metadata; its address may be another machine's."""
    fake = demo_host()
    ports = replace(fake.ports, hypervisor=Simulated(fake.ports.hypervisor))  # type: ignore[arg-type]
    with pytest.raises(Refused, match="at its address is another machine, or none"):
        open_session(find_guest(ports.hypervisor, "web-01"), ports, deadline=0.0)
