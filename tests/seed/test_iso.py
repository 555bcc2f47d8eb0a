"""Seed images, read by pycdlib and, where it is installed, by blkid, as cloud-init looks for them."""

from __future__ import annotations

import stat
from io import BytesIO
from pathlib import Path

import pytest
from pycdlib import PyCdlib

from vmhost.drivers.command import run
from vmhost.drivers.seediso import IsoSeedMaker
from vmhost.model.errors import DriverError

FILES = {"meta-data": b"{}\n", "user-data": b"#cloud-config\n" + bytes(range(256)) * 4096, "network-config": b""}


def read(image: bytes) -> PyCdlib:
    iso = PyCdlib()
    iso.open_fp(BytesIO(image))
    return iso


def content(iso: PyCdlib, **path: str) -> bytes:
    out = BytesIO()
    iso.get_file_from_iso_fp(out, **path)
    return out.getvalue()


@pytest.mark.parametrize("names", ["rr_path", "joliet_path"])
def test_the_files_have_their_own_names_in_both_extensions(names: str) -> None:
    iso = read(IsoSeedMaker().make(FILES))
    assert {name: content(iso, **{names: f"/{name}"}) for name in FILES} == FILES


def test_the_label() -> None:
    iso = read(IsoSeedMaker().make(FILES))
    assert iso.pvd.volume_identifier.decode().strip() == "cidata"


def test_the_files_are_for_root_only() -> None:
    iso = read(IsoSeedMaker().make(FILES))
    for name in FILES:
        record = iso.get_record(rr_path=f"/{name}")
        assert record.rock_ridge.get_file_mode() == stat.S_IFREG | 0o400


def test_blkid_finds_the_label(tmp_path: Path) -> None:
    path = tmp_path / "seed.iso"
    path.write_bytes(IsoSeedMaker().make(FILES))
    told = run(["blkid", "-p", "-o", "export", str(path)], timeout=10).text
    assert "LABEL=cidata" in told
    assert "TYPE=iso9660" in told


def test_a_seed_without_secrets_covers_the_one_that_it_replaces() -> None:
    first = IsoSeedMaker().make({"user-data": b"secret" * 10_000})
    second = IsoSeedMaker().make({"user-data": b""})
    assert len(first) == len(second) == 1 << 20
    assert len(IsoSeedMaker().make({"user-data": b"x" * (1 << 20)})) == 2 << 20


def test_a_name_that_iso_9660_cannot_hold_is_refused() -> None:
    with pytest.raises(DriverError, match="cannot make the seed image"):
        IsoSeedMaker().make({"x" * 300: b""})


def test_no_files_make_an_empty_image() -> None:
    assert read(IsoSeedMaker().make({}))
