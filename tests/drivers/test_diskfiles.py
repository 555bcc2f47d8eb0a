"""The files of UEFI's variables, as a kill at any moment leaves them."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmhost.drivers.diskfiles import LocalDiskFiles
from vmhost.model.domains import DomainState, RawDomain


def test_variables_have_their_owner_and_mode_before_they_take_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, kept = tmp_path / "web_VARS.fd", tmp_path / "kept.fd"
    place.write_bytes(b"now")
    place.chmod(0o640)
    kept.write_bytes(b"then")
    before, rename = place.stat(), Path.replace
    renamed: list[tuple[int, int, int]] = []

    def noted(path: Path, target: Path) -> Path:
        found = path.stat()
        renamed.append((found.st_uid, found.st_gid, found.st_mode))
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", noted)
    xml = f"<domain><os><nvram>{place}</nvram></os></domain>"
    LocalDiskFiles(lambda: True).put_nvram(RawDomain("1", "web", DomainState.SHUTOFF, xml), str(kept))
    assert renamed == [(before.st_uid, before.st_gid, before.st_mode)]
    assert place.read_bytes() == b"then"
