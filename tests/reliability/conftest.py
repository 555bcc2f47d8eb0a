"""A host with a tiny image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.labfixture import InLab
from tests.reliability.image import tiny_image
from tests.reliability.scene import look
from vmhost.ops.host import Host


@pytest.fixture(scope="module")
def image(lab: InLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file of an image ``tiny``."""
    del lab
    with tiny_image(tmp_path_factory.mktemp("images"), "tiny") as path:
        yield path


@pytest.fixture
def real(image: Path) -> Iterator[Host]:
    """The lab's host; a test leaves it as it found it."""
    del image
    with Host() as host:
        before = look(host)
        yield host
        assert look(host) == before
