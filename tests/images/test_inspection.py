"""What may become an image and what may not, with files of real qemu-img and files that no tool would write."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.images.headers import Header
from vmhost.drivers.command import run
from vmhost.drivers.images import qcow2
from vmhost.drivers.images.inspection import LARGEST, admit, inspect
from vmhost.drivers.images.signatures import COMPRESSED, FORMATS, HEAD, TAIL, found
from vmhost.model.errors import Absent, DamagedData, Refused, VmhostError

MIB = 1 << 20


def qemu_img(*words: str | Path) -> None:
    """Run qemu-img; measuring how fast it derives keys fails on busy machines, and is then tried again."""
    for _ in range(30):
        done = run(["qemu-img", *map(str, words)], timeout=60, check=False)
        if b"Unable to get accurate CPU usage" not in done.stderr:
            break
    assert done.code == 0, done.stderr.decode()


def raw_disk(path: Path, *, size: int = 4 * MIB) -> Path:
    """A raw disk with a partition table, as sfdisk writes it."""
    with path.open("wb") as file:
        file.truncate(size)
    run(["sfdisk", "--quiet", str(path)], input=b"label: gpt\nstart=2048\n", timeout=60)
    return path


# --- what real tools write --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        "compat=0.10",
        "compat=1.1",
        "compat=1.1,lazy_refcounts=on",
        "compat=1.1,cluster_size=4k",
        "compat=1.1,cluster_size=2M",
        "compat=1.1,extended_l2=on",
        "compat=1.1,compression_type=zstd",
        "compat=1.1,refcount_bits=1",
        "compat=1.1,refcount_bits=64",
        "compat=1.1,preallocation=metadata",
    ],
)
def test_every_sound_qcow2_of_qemu_img_is_admitted(tmp_path: Path, options: str) -> None:
    file = tmp_path / "disk.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-o", options, file, "1G")

    facts = admit(file, expect="qcow2")

    assert (facts.format, facts.virtual_size, facts.file_size) == ("qcow2", 1 << 30, file.stat().st_size)
    assert facts.version == (2 if "0.10" in options else 3)
    assert facts.compression == ("zstd" if "zstd" in options else "zlib")


def test_a_qcow2_with_data_snapshots_and_bitmaps_is_admitted(tmp_path: Path) -> None:
    file = tmp_path / "disk.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", file, "1G")
    run(["qemu-io", "-f", "qcow2", "-c", "write -P 1 0 2M", "-c", "write -P 2 700M 2M", str(file)], timeout=60)
    qemu_img("bitmap", "--add", "-f", "qcow2", file, "b0")
    qemu_img("snapshot", "-c", "first", file)

    assert admit(file).snapshots == 1


@pytest.mark.parametrize("form", ["qcow2", "raw"])
def test_a_backing_file_is_refused(tmp_path: Path, form: str) -> None:
    qemu_img("create", "-q", "-f", form, tmp_path / "base", "1G")
    qemu_img("create", "-q", "-f", "qcow2", "-b", tmp_path / "base", "-F", form, tmp_path / "disk", "1G")

    with pytest.raises(Refused, match="backing file") as refused:
        admit(tmp_path / "disk")
    assert str(tmp_path / "base") in str(refused.value)


def test_a_backing_file_of_the_host_is_refused_without_being_there(tmp_path: Path) -> None:
    """The attack of CVE-2015-5163 and its kin: QEMU would have read it."""
    qemu_img("create", "-q", "-f", "qcow2", "-u", "-b", "/etc/shadow", "-F", "raw", tmp_path / "disk", "1G")
    with pytest.raises(Refused, match="/etc/shadow"):
        admit(tmp_path / "disk")


@pytest.mark.parametrize("data_raw", ["on", "off"])
def test_an_external_data_file_is_refused(tmp_path: Path, data_raw: str) -> None:
    """CVE-2024-32498."""
    data = tmp_path / "data.raw"
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={data},data_file_raw={data_raw}", tmp_path / "disk", "1G")
    with pytest.raises(Refused, match=r"another file \(.*data\.raw\)"):
        admit(tmp_path / "disk")


def test_an_encrypted_image_is_refused(tmp_path: Path) -> None:
    secret = ["--object", "secret,id=s,data=words"]
    options = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"
    qemu_img("create", "-q", *secret, "-f", "qcow2", "-o", options, tmp_path / "disk", "4M")
    with pytest.raises(Refused, match="encrypted"):
        admit(tmp_path / "disk")


@pytest.mark.parametrize(
    ("form", "options", "seen"),
    [
        ("vmdk", "subformat=monolithicSparse", "vmdk"),
        ("vmdk", "subformat=streamOptimized", "vmdk"),
        ("vmdk", "subformat=monolithicFlat", "vmdk"),
        ("vdi", "", "vdi"),
        ("vpc", "subformat=dynamic", "vhd"),
        ("vpc", "subformat=fixed", "vhd"),
        ("vhdx", "", "vhdx"),
        ("qed", "", "qed"),
        ("parallels", "", "parallels"),
    ],
)
def test_other_formats_are_named_and_refused(tmp_path: Path, form: str, options: str, seen: str) -> None:
    file = tmp_path / "disk"
    qemu_img("create", "-q", "-f", form, *(["-o", options] if options else []), file, "64M")
    assert inspect(file).format == seen
    with pytest.raises(Refused, match=f"of format {seen}"):
        admit(file)
    with pytest.raises(Refused, match=f"of format {seen}"):
        admit(file, expect="raw")


def test_a_luks_disk_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "disk"
    options = "key-secret=s,iter-time=10"
    qemu_img("create", "-q", "--object", "secret,id=s,data=words", "-f", "luks", "-o", options, file, "4M")
    with pytest.raises(Refused, match="luks"):
        admit(file, expect="raw")


def test_raw_disks_are_admitted_by_what_they_hold(tmp_path: Path) -> None:
    assert inspect(raw_disk(tmp_path / "gpt")).layout == "gpt"
    dos = tmp_path / "dos"
    dos.write_bytes(bytes(4 * MIB))
    run(["sfdisk", "--quiet", str(dos)], input=b"label: dos\nstart=2048\n", timeout=60)
    assert admit(dos).layout == "mbr"
    assert admit(tmp_path / "gpt", expect="raw").virtual_size == 4 * MIB


def test_a_raw_disk_that_carries_a_qcow2_header_is_never_raw(tmp_path: Path) -> None:
    """CVE-2026-24708: the guest wrote the header, and whoever guesses the format opens another file."""
    disk = raw_disk(tmp_path / "disk")
    evil = Header(backing_offset=0x200, backing_length=11, backing_name=b"/etc/shadow")
    with disk.open("r+b") as file:
        file.write(evil.packed())
        file.seek(0x200)
        file.write(b"/etc/shadow")
    with pytest.raises((Refused, DamagedData)):
        admit(disk, expect="raw")


def test_a_raw_disk_with_a_vhd_footer_is_refused(tmp_path: Path) -> None:
    disk = raw_disk(tmp_path / "disk")
    with disk.open("r+b") as file:
        file.seek(-512, os.SEEK_END)
        file.write(b"conectix")
    with pytest.raises(Refused, match="vhd"):
        admit(disk, expect="raw")


def test_a_file_of_two_formats_is_damaged(tmp_path: Path) -> None:
    file = Header().write(tmp_path / "disk")
    with file.open("r+b") as handle:
        handle.seek(-512, os.SEEK_END)
        handle.write(b"conectix")
    with pytest.raises(DamagedData, match="qcow2 and vhd"):
        admit(file)


@pytest.mark.parametrize("mark", COMPRESSED, ids=lambda mark: mark.format)
def test_compressed_files_are_told_apart(tmp_path: Path, mark) -> None:
    file = tmp_path / "disk.img"
    file.write_bytes(mark.magic.ljust(1 << 20, b"x"))
    with pytest.raises(Refused, match=f"compressed \\({mark.format}\\)"):
        admit(file, expect="qcow2")


def test_what_a_server_says_instead_of_an_image_is_no_image(tmp_path: Path) -> None:
    page = tmp_path / "disk.qcow2"
    page.write_text("<html>Please log in to this network</html>\n" * 100)
    with pytest.raises(DamagedData, match="is raw, though it should be qcow2"):
        admit(page, expect="qcow2")
    with pytest.raises(DamagedData):
        admit(page)


@pytest.mark.parametrize("size", [0, 1, 511, 513, 1 << 20])
def test_what_holds_no_disk_is_refused(tmp_path: Path, size: int) -> None:
    file = tmp_path / "disk"
    file.write_bytes(bytes(size))
    with pytest.raises(DamagedData):
        admit(file, expect="raw")


# --- files that are no files ------------------------------------------------------------------------------------------


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero"), tmp_path):
        with pytest.raises(Refused, match="not a regular file"):
            inspect(path)
    with pytest.raises(Absent):
        inspect(tmp_path / "missing")


# --- headers that contradict themselves -------------------------------------------------------------------------------


def test_the_handwritten_header_is_sound(tmp_path: Path) -> None:
    """Otherwise the tests below would show nothing; qemu-img reads it, too."""
    file = Header().write(tmp_path / "disk")
    assert admit(file).virtual_size == 1 << 30
    assert b'"virtual-size": 1073741824' in run(["qemu-img", "info", "--output=json", str(file)], timeout=60).stdout


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 1}, "version 1"),
        ({"version": 4}, "version 4"),
        ({"cluster_bits": 8}, "clusters of"),
        ({"cluster_bits": 22}, "clusters of"),
        ({"crypt": 3}, "encryption method 3"),
        ({"incompatible": 1 << 5}, "incompatible features 0x20"),
        ({"incompatible": 1 << 63}, "incompatible features"),
        ({"compression": 1}, "compression type contradicts"),
        ({"compression": 0, "incompatible": 1 << 3}, "compression type contradicts"),
        ({"compression": 2, "incompatible": 1 << 3}, "compression type 2"),
        ({"refcount_order": 7}, "refcounts of"),
        ({"length": 100}, "length of 100"),
        ({"length": 109}, "length of 109"),
        ({"size": (1 << 30) + 1}, "not a multiple"),
        ({"l1_entries": 1}, "too small"),
        ({"l1_entries": (1 << 32) - 1}, "entries"),
        ({"l1_offset": 0}, "not at the start of a cluster"),
        ({"l1_offset": (3 << 16) + 512}, "not at the start of a cluster"),
        ({"l1_offset": 9 << 16}, "cut short"),
        ({"l1": (1 << 40, 0)}, "cut short"),
        ({"refcount_offset": 9 << 16}, "cut short"),
        ({"refcount_clusters": 0}, "refcount table claims"),
        ({"refcount_clusters": (1 << 32) - 1}, "refcount table claims"),
        ({"snapshots": 1, "snapshots_offset": 9 << 16}, "cut short"),
        ({"snapshots": 1 << 20, "snapshots_offset": 2 << 16}, "snapshots"),
        ({"backing_offset": 1 << 20, "backing_length": 4}, "outside the header"),
        ({"backing_offset": 512, "backing_length": 0}, "outside the header"),
        ({"backing_offset": 512, "backing_length": 4096}, "outside the header"),
        ({"extensions": [(0x6803F857, b"x" * 70000)]}, "beyond the header"),
        ({"file_size": 100}, "cut short"),
        ({"incompatible": 2}, "marked as corrupt"),
        ({"incompatible": 1}, "not closed properly"),
        ({"size": 0, "l1_entries": 0}, "size of 0"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_header_that_cannot_be_is_damaged(tmp_path: Path, change: dict[str, object], words: str) -> None:
    file = Header(**change).write(tmp_path / "disk")
    with pytest.raises(DamagedData, match=words):
        admit(file)


def test_a_size_beyond_all_measure_is_damaged(tmp_path: Path) -> None:
    size = 2 * LARGEST
    covered = 1 << (2 * 21 - 3)
    header = Header(cluster_bits=21, size=size, l1_entries=size // covered, l1_offset=3 << 21, refcount_offset=1 << 21)
    header.file_size, header.l1 = 5 << 21, ()
    with pytest.raises(DamagedData, match="claims a size"):
        admit(header.write(tmp_path / "disk"))


@pytest.mark.parametrize(
    "change",
    [
        {"extensions": [(0x44415441, b"/etc/shadow")]},
        {"extensions": [(0xE2792ACA, b"raw"), (0x44415441, b"/etc/shadow")], "incompatible": 4},
        {"incompatible": 4},
        {"backing_offset": 0x200, "backing_length": 11, "backing_name": b"/etc/shadow"},
        {"version": 2, "backing_offset": 0x200, "backing_length": 11, "backing_name": b"/etc/shadow"},
        {"backing_offset": 0x200, "backing_length": 20, "backing_name": b'json:{"driver":"nbd"}'},
        {"backing_offset": 0x200, "backing_length": 4, "backing_name": b"\0\0\0\0"},
        {"backing_offset": 0x200, "backing_length": 3, "backing_name": b"\xff\xfe\x1b"},
    ],
    ids=lambda value: str(value)[:60],
)
def test_no_way_to_name_another_file_passes(tmp_path: Path, change: dict[str, object]) -> None:
    file = Header(**change).write(tmp_path / "disk")
    with pytest.raises(Refused) as refused:
        admit(file)
    assert str(refused.value).isprintable()


# --- anything at all --------------------------------------------------------------------------------------------------

_ANY_HEADER = st.builds(
    Header,
    version=st.sampled_from([2, 3, 3, 3]),
    backing_offset=st.one_of(st.just(0), st.integers(0, 2**64 - 1), st.integers(0, 1 << 17)),
    backing_length=st.one_of(st.just(0), st.integers(0, 2**32 - 1), st.integers(0, 2000)),
    cluster_bits=st.one_of(st.integers(9, 21), st.integers(0, 2**32 - 1)),
    size=st.one_of(st.just(1 << 30), st.integers(0, 2**64 - 1)),
    l1_entries=st.one_of(st.just(2), st.integers(0, 2**32 - 1), st.integers(0, 5000)),
    l1_offset=st.one_of(st.integers(0, 8).map(lambda n: n << 16), st.integers(0, 2**64 - 1)),
    refcount_offset=st.one_of(st.just(1 << 16), st.integers(0, 2**64 - 1)),
    refcount_clusters=st.one_of(st.just(1), st.integers(0, 2**32 - 1)),
    snapshots=st.one_of(st.just(0), st.integers(0, 2**32 - 1)),
    snapshots_offset=st.integers(0, 2**64 - 1),
    incompatible=st.one_of(st.integers(0, 31), st.integers(0, 2**64 - 1)),
    length=st.one_of(st.sampled_from([104, 112]), st.integers(0, 2**32 - 1)),
    compression=st.integers(0, 255),
    extensions=st.lists(st.tuples(st.integers(0, 2**32 - 1), st.binary(max_size=64)), max_size=4),
)


@given(header=_ANY_HEADER, rest=st.binary(max_size=256))
def test_any_header_is_read_or_called_malformed_and_never_admitted_with_a_name(header: Header, rest: bytes) -> None:
    data = header.packed() + rest

    def read(offset: int, count: int) -> bytes:
        assert 0 <= count <= 1 << 26, "a header may not make us read without bound"
        return data[offset : offset + count]

    try:
        facts = qcow2.parse(read, header.file_size)
    except qcow2.Malformed:
        return
    assert facts.backing_file or not header.backing_offset
    assert facts.virtual_size == header.size


@given(data=st.binary(max_size=2048), magic=st.sampled_from([b"", *(mark.magic for mark in FORMATS)]))
def test_any_bytes_are_inspected_without_surprise(tmp_path_factory, data: bytes, magic: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any-bytes"
    file.write_bytes(magic + data)
    refusal, kind = "", ""
    try:
        kind = admit(file).format
    except VmhostError as error:
        refusal = str(error)
    assert refusal.isprintable() if refusal else kind in ("qcow2", "raw")


@given(position=st.integers(0, 200), value=st.integers(0, 255))
def test_one_changed_byte_never_adds_a_file_unseen(position: int, value: int) -> None:
    data = bytearray(Header().packed().ljust(4 << 16, b"\0"))
    data[position] = value
    try:
        facts = qcow2.parse(lambda offset, count: bytes(data[offset : offset + count]), len(data))
    except qcow2.Malformed:
        return
    (backing,) = struct.unpack_from(">Q", data, 8)
    assert bool(facts.backing_file) == bool(backing)


def test_marks_at_both_ends_are_found_in_short_files() -> None:
    assert found(FORMATS, b"conectix", b"conectix") == ("vhd",)
    assert found(FORMATS, b"", b"") == ()
    assert max(mark.offset + len(mark.magic) for mark in FORMATS) <= HEAD
    assert min(mark.offset for mark in FORMATS) >= -TAIL
