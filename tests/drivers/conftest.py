"""The lab's libvirtd behind our driver."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.backends import Backend, real_libvirt
from tests.labfixture import InLab


@pytest.fixture
def real(lab: InLab, tmp_path: Path) -> Iterator[Backend]:
    """What a test makes on it is taken away afterwards."""
    del lab
    backend = real_libvirt(tmp_path)
    try:
        yield backend
        backend.clean()
    finally:
        backend.hypervisor.close()
