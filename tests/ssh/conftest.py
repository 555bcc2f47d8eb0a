from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ssh.private_sshd import PrivateSshd
from vmhost.drivers.ssh.session import SshSession
from vmhost.drivers.ssh.shell import SshShell


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateSshd]:
    """One real OpenSSH server for all tests of a run."""
    with PrivateSshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def shell() -> Iterator[SshShell]:
    with SshShell() as opened:
        yield opened


@pytest.fixture
def session(sshd: PrivateSshd, shell: SshShell) -> SshSession:
    return shell.connect(sshd.target(), deadline=time.monotonic() + 10)


@pytest.fixture
def area(tmp_path: Path) -> Path:
    """A directory that this process and the "guest" see alike: the server runs on this machine."""
    return tmp_path
