"""Whether overlays were written; the files of UEFI's variables, as a kill at any moment leaves them."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmhost.drivers.command import run
from vmhost.drivers.diskfiles import LocalDiskFiles
from vmhost.model.domains import DomainState, RawDomain


@pytest.mark.parametrize("how", ["write -P 7 1M 64k", "write -z 0 64k", "discard 0 64k"])
def test_an_overlay_is_written_once_anything_is_its_own(tmp_path: Path, how: str) -> None:
    base, top = tmp_path / "base, of all.qcow2", tmp_path / 'top "1".qcow2'
    files = LocalDiskFiles(lambda: True)
    assert not files.written(str(top)), "it is not there"
    top.touch()
    assert not files.written(str(top)), "nor is what a power cut has left of it"
    top.unlink()
    run(("qemu-img", "create", "-q", "-f", "qcow2", str(base), "8M"), timeout=30)
    assert not files.written(str(base))
    run(("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 2M", str(base)), timeout=30)
    assert files.written(str(base))
    run(("qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "qcow2", str(top)), timeout=30)
    run(("qemu-io", "-f", "qcow2", "-c", "read 0 8M", str(top)), timeout=30)
    assert not files.written(str(top)), "what it lies on is not its own"
    run(("qemu-io", "-d", "unmap", "-f", "qcow2", "-c", how, str(top)), timeout=30)
    assert files.written(str(top))


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
