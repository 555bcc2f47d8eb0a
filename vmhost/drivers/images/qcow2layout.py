"""A qcow2 file whose tables are known before its data: it is written, and hashed, from its first byte to its last.

QEMU writes tables as data arrives, and last what lies first. Here it is known before what a disk holds. Source of every
field: QEMU's ``docs/interop/qcow2.txt``.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from vmhost.drivers.images.qcow2 import CLUSTER, Malformed, Tables, header

_ENTRIES: Final = CLUSTER // 8
"""Entries of 8 bytes in a cluster: of a second-level table, of the first-level one, of the refcounts' table."""
_COUNTED: Final = CLUSTER // 2
"""Clusters that one block of refcounts counts, of 16 bits each."""
_COPIED: Final = 1 << 63
_LARGEST: Final = (32 << 20) // 8 * _ENTRIES * CLUSTER
"""Bytes of a disk whose first-level table has the 32 MiB that QEMU reads."""


class Layout:
    """Where what a disk holds lies in such a file: behind the header, refcounts and both levels of tables, in order.

    ``data`` is where it begins, ``size`` where the file ends, in bytes.

    :param capacity: bytes of the disk, a multiple of 512, up to 2 PiB.
    :param held: offset and length in bytes of what it holds, each behind the one before; all else reads as zeros. What
        holds a part of a cluster of 64 KiB holds the cluster.
    :raises Malformed: there is no file of such a disk.
    """

    def __init__(self, capacity: int, held: Iterable[tuple[int, int]]) -> None:
        if not 0 < capacity <= _LARGEST or capacity % 512:
            raise Malformed(f"no file can be of {capacity} bytes")
        self._capacity = capacity
        self._runs = _runs(capacity, held)
        self._covered = _covered(self._pairs())
        entries = _parts(capacity, _ENTRIES * CLUSTER)
        level1, level2 = _parts(entries, _ENTRIES), len(self._covered)
        total, blocks, heads = _counted(1 + level1 + level2 + sum(count for _, count in self._pairs()))
        self._refcounts, self._clusters = 1 + heads, total
        self._tables = Tables(entries, (1 + heads + blocks) * CLUSTER, CLUSTER, heads)
        self._level2 = self._tables.l1_offset + level1 * CLUSTER
        self.data = self._level2 + level2 * CLUSTER
        self.size = total * CLUSTER

    def runs(self) -> Iterator[tuple[int, int]]:
        """Yield offset and length in bytes of what is to be read of the disk, in order: what follows ``data``."""
        for start, count in self._pairs():
            yield start * CLUSTER, min(count * CLUSTER, self._capacity - start * CLUSTER)

    def tables(self) -> Iterator[bytes]:
        """Yield the clusters before ``data``, in order."""
        yield header(self._capacity, self._tables).ljust(CLUSTER, b"\0")
        blocks = range(self._refcounts * CLUSTER, self._tables.l1_offset, CLUSTER)
        yield from _packed("Q", blocks)
        yield from _packed("H", (1 for _ in range(self._clusters)))
        places = {table: self._level2 + number * CLUSTER for number, table in enumerate(self._covered)}
        yield from _packed("Q", (places[n] | _COPIED if n in places else 0 for n in range(self._tables.l1_entries)))
        yield from self._level2_tables()

    def _level2_tables(self) -> Iterator[bytes]:
        table, number, place = array("Q", bytes(CLUSTER)), -1, self.data | _COPIED
        for start, count in self._pairs():
            end = start + count
            while start < end:
                if start // _ENTRIES != number:
                    if number >= 0:
                        yield _big_endian(table)
                    table, number = array("Q", bytes(CLUSTER)), start // _ENTRIES
                here = min(end, (number + 1) * _ENTRIES) - start
                first = start % _ENTRIES
                table[first : first + here] = array("Q", range(place, place + here * CLUSTER, CLUSTER))
                start, place = start + here, place + here * CLUSTER
        if number >= 0:
            yield _big_endian(table)

    def _pairs(self) -> Iterator[tuple[int, int]]:
        return zip(self._runs[::2], self._runs[1::2], strict=True)


def _runs(capacity: int, held: Iterable[tuple[int, int]]) -> array[int]:
    """Return first cluster and number of clusters of each run, in turns: there may be millions of them."""
    runs, last = array("Q"), _parts(capacity, CLUSTER)
    for offset, length in held:
        start, end = offset // CLUSTER, _parts(offset + length, CLUSTER)
        behind = runs[-2] + runs[-1] if runs else 0
        if length <= 0 or end > last or (runs and start < behind - 1):
            raise Malformed(f"{length} bytes at {offset} are not of a disk of {capacity} bytes, or not in order")
        if runs and start <= behind:
            runs[-1] = max(end, behind) - runs[-2]
        else:
            runs.extend((start, end - start))
    return runs


def _covered(runs: Iterable[tuple[int, int]]) -> list[int]:
    """Return the numbers of the second-level tables of runs, in order."""
    found: list[int] = []
    for start, count in runs:
        first = start // _ENTRIES
        found.extend(range(first + (found[-1:] == [first]), (start + count - 1) // _ENTRIES + 1))
    return found


def _counted(others: int) -> tuple[int, int, int]:
    """Return the clusters of a file, the blocks of refcounts among them, and the clusters of their table.

    :param others: all clusters but these, which count themselves, too.
    """
    blocks = heads = 0
    while (needed := _parts(others + blocks + heads, _COUNTED)) != blocks or _parts(needed, _ENTRIES) != heads:
        blocks, heads = needed, _parts(needed, _ENTRIES)
    return others + blocks + heads, blocks, heads


def _packed(kind: str, values: Iterable[int]) -> Iterator[bytes]:
    """Yield numbers in whole clusters, the last one filled up with zeros."""
    source = iter(values)
    room = CLUSTER // array(kind).itemsize
    while numbers := array(kind, islice(source, room)):
        yield _big_endian(numbers).ljust(CLUSTER, b"\0")


def _big_endian(numbers: array[int]) -> bytes:
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers.tobytes()


def _parts(whole: int, size: int) -> int:
    return -(-whole // size)
