"""The guard of pure tests bites, cannot be swallowed, and lets go."""

from __future__ import annotations

import socket
import subprocess

import pytest

from tests.purity import RealWorldTouched, no_real_world


def test_programs_and_networks_are_out_of_reach() -> None:
    with no_real_world(), pytest.raises(RealWorldTouched, match=r"subprocess\.Popen"):
        subprocess.run(["true"], check=True)
    with no_real_world(), socket.socket() as ours, pytest.raises(RealWorldTouched, match=r"socket\.connect"):
        ours.connect(("127.0.0.1", 9))


def test_no_handler_swallows_it() -> None:
    def careless() -> None:
        try:
            subprocess.run(["true"], check=True)
        except Exception:  # noqa: BLE001  # just what code under test must not get away with
            return

    with no_real_world(), pytest.raises(RealWorldTouched):
        careless()


def test_it_lets_go() -> None:
    with no_real_world():
        pass
    assert subprocess.run(["true"], check=False).returncode == 0
