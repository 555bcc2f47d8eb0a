"""Files whose tables are written first: QEMU finds no fault in them, and reads what was to be in them."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmhost.drivers.command import run
from vmhost.drivers.images.qcow2 import CLUSTER, Malformed, parse
from vmhost.drivers.images.qcow2layout import Layout

GIB = 1 << 30
TABLE = 512 << 20
"""Bytes of a disk that one second-level table is of."""
PLACES = st.integers(0, 2 * GIB // 512 + 3).map(lambda sector: sector * 512)
NEAR = st.integers(-3 * CLUSTER // 512, 3 * CLUSTER // 512).map(lambda sector: TABLE + sector * 512)


def written(directory: Path, layout: Layout) -> Path:
    """Write a file of such a layout, each cluster of it filled with a number of its own."""
    path = directory / "disk.qcow2"
    with path.open("wb") as file:
        for table in layout.tables():
            assert len(table) == CLUSTER
            file.write(table)
        assert file.tell() == layout.data
        file.truncate(layout.size)
    return path


def mapped(path: Path) -> list[tuple[int, int, int]]:
    """Return what QEMU says that a file holds: offset and length on the disk, and the place in the file."""
    said = json.loads(run(("qemu-img", "map", "--output=json", "-f", "qcow2", str(path)), timeout=60).stdout)
    return [(found["start"], found["length"], found["offset"]) for found in said if "offset" in found]


@settings(max_examples=20)
@given(marks=st.sets(PLACES | NEAR, min_size=2, max_size=16), more=st.integers(0, CLUSTER // 512))
def test_qemu_finds_each_byte_where_it_was_put(
    tmp_path_factory: pytest.TempPathFactory, marks: set[int], more: int
) -> None:
    ordered = sorted(marks)
    held = [(start, end - start) for start, end in list(pairwise(ordered))[::2]]
    capacity = ordered[-1] + more * 512
    layout = Layout(capacity, held)
    path = written(tmp_path_factory.mktemp("layout"), layout)
    run(("qemu-img", "check", "-q", "-f", "qcow2", str(path)), timeout=60)
    runs = list(layout.runs())
    for offset, length in held:
        assert any(start <= offset and offset + length <= start + count for start, count in runs)
    assert all(start + count < later for (start, count), (later, _) in pairwise(runs))
    places, wanted = layout.data, list[tuple[int, int, int]]()
    for start, count in runs:
        wanted.append((start, count, places))
        places += -(-count // CLUSTER) * CLUSTER
    assert places == layout.size
    assert joined(mapped(path)) == wanted
    path.unlink()


def joined(found: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Put together what QEMU tells of in pieces."""
    whole = list[tuple[int, int, int]]()
    for start, length, place in found:
        if whole and (whole[-1][0] + whole[-1][1], whole[-1][2] + whole[-1][1]) == (start, place):
            whole[-1] = (whole[-1][0], whole[-1][1] + length, whole[-1][2])
        else:
            whole.append((start, length, place))
    return whole


@pytest.mark.parametrize(
    ("capacity", "held"),
    [
        (512, []),
        (512, [(0, 512)]),
        (GIB + 512, [(GIB, 512)]),
        (9 * GIB, [(0, 9 * GIB)]),
        (5 << 40, [(0, 1), (3 << 40, GIB), ((5 << 40) - 1, 1)]),
    ],
)
def test_of_every_size(tmp_path: Path, capacity: int, held: list[tuple[int, int]]) -> None:
    layout = Layout(capacity, held)
    path = written(tmp_path, layout)
    run(("qemu-img", "check", "-q", "-f", "qcow2", str(path)), timeout=60)
    with path.open("rb") as file:

        def read(offset: int, count: int) -> bytes:
            file.seek(offset)
            return file.read(count)

        assert parse(read, layout.size).virtual_size == capacity
    assert joined(mapped(path)) == [
        (start, count, place) for (start, count), place in zip(layout.runs(), _places(layout), strict=True)
    ]


def _places(layout: Layout) -> list[int]:
    places = [layout.data]
    for _, count in layout.runs():
        places.append(places[-1] + -(-count // CLUSTER) * CLUSTER)
    return places[:-1]


def test_a_file_is_written_on_by_qemu(tmp_path: Path) -> None:
    path = written(tmp_path, Layout(GIB, [(0, CLUSTER), (TABLE, CLUSTER)]))
    for place in (0, CLUSTER, TABLE - CLUSTER, GIB - 512):
        run(("qemu-io", "-f", "qcow2", "-c", f"write -P 7 {place} 512", str(path)), timeout=60)
    run(("qemu-img", "check", "-q", str(path)), timeout=60)
    for place in (0, CLUSTER, TABLE - CLUSTER, GIB - 512):
        run(("qemu-io", "-r", "-f", "qcow2", "-c", f"read -P 7 {place} 512", str(path)), timeout=60)


@pytest.mark.parametrize(
    ("capacity", "held"),
    [
        (0, []),
        (513, []),
        (1 << 52, []),
        (512, [(0, CLUSTER + 1)]),
        (GIB, [(GIB, 512)]),
        (GIB, [(0, 0)]),
        (GIB, [(3 * CLUSTER, CLUSTER), (0, CLUSTER)]),
    ],
)
def test_what_is_of_no_disk_is_refused(capacity: int, held: list[tuple[int, int]]) -> None:
    with pytest.raises(Malformed):
        Layout(capacity, held)
