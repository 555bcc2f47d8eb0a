"""Ctrl-C and SIGTERM while cloud-init's verdict is awaited on a real connection."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.contract.backends import eventually
from tests.engine.scenes import WEB, site
from tests.ssh.private_sshd import PrivateSshd
from tests.ssh.used import processes_with
from vmhost.cli.common import interruptible
from vmhost.drivers.ssh.session import SshSession
from vmhost.drivers.ssh.shell import SshShell
from vmhost.model.errors import Cancelled
from vmhost.model.shell import SshTarget
from vmhost.ops.host import Host
from vmhost.testing import FakeHost

pytestmark = pytest.mark.serial  # it has deadlines in real time

SOON = 10.0
NUMBER = f"{time.time_ns() % 10**9 + 10**6}"
BUSY = """\
#!/bin/sh
# A guest whose cloud-init never comes to its end; everything else is done as it is asked.
case $SSH_ORIGINAL_COMMAND in
*cloud-init*) eval "${{SSH_ORIGINAL_COMMAND%% exec *}} exec sleep {number}" ;;
*) eval "$SSH_ORIGINAL_COMMAND" ;;
esac
"""


@dataclass
class Leading:
    """Leads every guest of a fake host to one real SSH server."""

    shell: SshShell
    sshd: PrivateSshd

    def connect(self, _target: SshTarget, *, deadline: float, check: Callable[[], None]) -> SshSession:
        return self.shell.connect(self.sshd.target(), deadline=time.monotonic() + SOON)

    def knock(self, _target: SshTarget, notify: Callable[[str], None]) -> AbstractContextManager[object]:
        notify("ssh")
        return nullcontext()


@pytest.fixture
def host(tmp_path: Path, shell: SshShell) -> Iterator[Host]:
    script = tmp_path / "busy"
    script.write_text(BUSY.format(number=NUMBER))
    fake = FakeHost(seed=2)
    fake.add_image("debian-12")
    with PrivateSshd(tmp_path, extra=f"ForceCommand /bin/sh {script}\n") as sshd:
        yield Host(ports=replace(fake.ports, shell=Leading(shell, sshd)))


@pytest.mark.parametrize(
    ("signals", "ends_with"),
    [
        ([signal.SIGINT], Cancelled),
        ([signal.SIGTERM], Cancelled),
        ([signal.SIGINT, signal.SIGINT], KeyboardInterrupt),
    ],
    ids=["Ctrl-C", "SIGTERM", "Ctrl-C twice"],
)
def test_a_signal_ends_the_waiting(host: Host, signals: list[int], ends_with: type[BaseException]) -> None:
    sent: list[float] = []

    def cancelled() -> bool:
        """The first signal comes when the guest is at work, the second when that one is heard."""
        heard = asked()
        if len(sent) < len(signals) and (heard if sent else processes_with(NUMBER)):
            sent.append(time.monotonic())
            os.kill(os.getpid(), signals[len(sent) - 1])
        return heard

    with pytest.raises(ends_with), interruptible() as asked:
        host.apply_site(site(WEB), cancelled=cancelled)
    assert time.monotonic() - sent[0] < SOON
    assert eventually(lambda: not processes_with(NUMBER))
