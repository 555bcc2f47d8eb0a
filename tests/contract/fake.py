"""The fake host as one of the hypervisors of the suite: what passes here and there alike makes tests on it honest."""

from __future__ import annotations

from pathlib import Path

from tests.contract.backends import Backend
from vmhost.testing import FakeHost


def fake_host(tmp_path: Path) -> Backend:
    """An empty host in memory."""
    host = FakeHost()
    save, files = host.domains.save, host.ports.files
    return Backend("fake", host.hypervisor, "qemu", tmp_path, save=save, kernel=host.kernel, files=files)
