"""One suite over several implementations of a port."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.backends import Backend, real_libvirt, test_driver


@pytest.fixture(params=["fake", "test", pytest.param("libvirt", marks=pytest.mark.lab)])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """A hypervisor; everything that a test makes on it is taken away afterwards."""
    if request.param == "fake":
        from tests.contract.fake import fake_host

        made = fake_host(tmp_path)
    elif request.param == "test":
        made = test_driver(tmp_path)
    else:
        request.getfixturevalue("lab")
        made = real_libvirt(tmp_path)
    try:
        yield made
        made.clean()
    finally:
        made.hypervisor.close()
