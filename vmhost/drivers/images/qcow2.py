"""The header of a qcow2 file, read strictly, and an empty file that lies on another.

Source of every field: QEMU's ``docs/interop/qcow2.txt``. Nothing is believed: offsets and lengths are checked against
the size of the file, and a feature that is not known here is an error, since QEMU might know it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

MAGIC: Final = b"QFI\xfb"
_V2: Final = struct.Struct(">4sIQIIQIIQQIIQ")
_V3: Final = struct.Struct(">QQQII")
_EXTENSION: Final = struct.Struct(">II")
_VERSION_2: Final = (0, 4, _V2.size, 0)

_DIRTY, _CORRUPT, _EXTERNAL_DATA, _COMPRESSION, _EXTENDED_L2 = (1 << bit for bit in range(5))
_KNOWN: Final = _DIRTY | _CORRUPT | _EXTERNAL_DATA | _COMPRESSION | _EXTENDED_L2
_END, _BACKING_FORMAT, _DATA_FILE = 0x00000000, 0xE2792ACA, 0x44415441
_CRYPT: Final = {0: "", 1: "aes", 2: "luks"}
_COMPRESSIONS: Final = {0: "zlib", 1: "zstd"}

_BITS, _REFCOUNT_ORDER = 16, 4
"""Of a cluster's size and of a refcount's, in what is made here: QEMU's own choice."""
CLUSTER: Final = 1 << _BITS

_L1_LIMIT: Final = 32 * 1024 * 1024
_NAME_LIMIT: Final = 1023
_OFFSET_MASK: Final = 0x00FFFFFFFFFFFE00

Read = Callable[[int, int], bytes]
"""``read(offset, count)``: the bytes of a file, fewer at its end."""


class Malformed(ValueError):
    """The header contradicts itself, the file or the format; the text says in what."""


@dataclass(frozen=True, slots=True)
class Qcow2Header:
    """What a qcow2 header says. Sizes are bytes; names of other files are empty when there is none."""

    version: int
    virtual_size: int
    cluster_size: int
    backing_file: str
    backing_format: str
    data_file: str
    external_data: bool
    encryption: str
    compression: str
    snapshots: int
    dirty: bool
    corrupt: bool


@dataclass(frozen=True, slots=True)
class _Raw:
    version: int
    backing_offset: int
    backing_length: int
    cluster_bits: int
    size: int
    crypt: int
    l1_entries: int
    l1_offset: int
    refcount_offset: int
    refcount_clusters: int
    snapshots: int
    snapshots_offset: int
    incompatible: int
    refcount_order: int
    length: int
    compression: int

    @property
    def cluster_size(self) -> int:
        return 1 << self.cluster_bits


def parse(read: Read, file_size: int) -> Qcow2Header:
    """Read and check the header of a qcow2 file, its extensions and where its first-level table points.

    :param file_size: bytes of the file.
    :raises Malformed: it is not qcow2, or not sound.
    """
    raw = _fields(read)
    _check_features(raw)
    _check_tables(raw, read, file_size)
    extensions = dict(_extensions(raw, read))
    return Qcow2Header(
        version=raw.version,
        virtual_size=raw.size,
        cluster_size=raw.cluster_size,
        backing_file=_backing_file(raw, read),
        backing_format=_text(extensions.get(_BACKING_FORMAT, b"")),
        data_file=_text(extensions.get(_DATA_FILE, b"")),
        external_data=bool(raw.incompatible & _EXTERNAL_DATA),
        encryption=_CRYPT[raw.crypt],
        compression=_COMPRESSIONS[raw.compression],
        snapshots=raw.snapshots,
        dirty=bool(raw.incompatible & _DIRTY),
        corrupt=bool(raw.incompatible & _CORRUPT),
    )


def empty(size: int, backing: str) -> Iterator[tuple[int, bytes]]:
    """Yield the pieces, each with its offset, of a file that holds nothing itself and lies on another qcow2 file.

    It is what ``qemu-img create`` makes: version 3, clusters of 64 KiB, refcounts of 16 bits, and the format of what
    lies below said, not guessed. The header comes last, so that a part of it is no qcow2 file.

    :param size: as the guest sees it, in bytes, a multiple of 512; :param backing: a path of up to 1,023 bytes.
    :raises Malformed: one of them is not so.
    """
    cluster, name = CLUSTER, backing.encode(errors="surrogateescape")
    entries = -(-size // (cluster * (cluster // 8)))
    clusters = 3 + -(-entries * 8 // cluster)  # the header, the refcounts' table and block, the first-level table
    if size <= 0 or size % 512 or entries * 8 > _L1_LIMIT or not 0 < len(name) <= _NAME_LIMIT:
        raise Malformed(f"no overlay can be of {size} bytes, on a name of {len(name)}")
    yield cluster, struct.pack(">Q", 2 * cluster)
    yield 2 * cluster, struct.pack(">H", 1) * clusters
    yield clusters * cluster - 1, b"\0"
    yield 0, header(size, Tables(entries, 3 * cluster, cluster, 1), name)


@dataclass(frozen=True, slots=True)
class Tables:
    """Where the tables of a file lie, in bytes, and how large they are: in entries, and in clusters."""

    l1_entries: int
    l1_offset: int
    refcount_offset: int
    refcount_clusters: int


def header(size: int, tables: Tables, backing: bytes = b"") -> bytes:
    """Return the header of a file of version 3 with clusters of 64 KiB and refcounts of 16 bits.

    :param size: as the guest sees it, in bytes; :param backing: the name of a qcow2 file that it lies on, or empty.
    """
    below = _EXTENSION.pack(_BACKING_FORMAT, 5) + b"qcow2\0\0\0" if backing else b""
    extensions = below + _EXTENSION.pack(_END, 0)
    length = _V2.size + _V3.size
    place = length + len(extensions) if backing else 0
    where = (tables.l1_entries, tables.l1_offset, tables.refcount_offset, tables.refcount_clusters)
    head = _V2.pack(MAGIC, 3, place, len(backing), _BITS, size, 0, *where, 0, 0)
    return head + _V3.pack(0, 0, 0, _REFCOUNT_ORDER, length) + extensions + backing


def _fields(read: Read) -> _Raw:
    head = read(0, _V2.size)
    if len(head) < _V2.size or head[:4] != MAGIC:
        raise Malformed("the header is cut short" if head[:4] == MAGIC else "no qcow2 header")
    plain: tuple[int, ...] = _V2.unpack(head)[1:]
    if plain[0] == 2:
        return _Raw(*(*plain, *_VERSION_2))
    if plain[0] != 3:
        raise Malformed(f"version {plain[0]} of qcow2 is not known")
    more = read(_V2.size, _V3.size)
    if len(more) < _V3.size:
        raise Malformed("the header is cut short")
    incompatible, _compatible, _autoclear, refcount_order, length = _V3.unpack(more)
    if length < _V2.size + _V3.size or length % 8:
        raise Malformed(f"the header claims a length of {length} bytes")
    compression = read(_V2.size + _V3.size, 1) if length > _V2.size + _V3.size else b"\0"
    return _Raw(*(*plain, incompatible, refcount_order, length, compression[0] if compression else 0))


def _check_features(raw: _Raw) -> None:
    unknown = raw.incompatible & ~_KNOWN
    if unknown:
        raise Malformed(f"incompatible features {unknown:#x} are not known")
    if raw.crypt not in _CRYPT:
        raise Malformed(f"encryption method {raw.crypt} is not known")
    if raw.compression not in _COMPRESSIONS:
        raise Malformed(f"compression type {raw.compression} is not known")
    if bool(raw.compression) != bool(raw.incompatible & _COMPRESSION):
        raise Malformed("the compression type contradicts its feature bit")
    if not 9 <= raw.cluster_bits <= 21:
        raise Malformed(f"clusters of 2^{raw.cluster_bits} bytes are not allowed")
    if raw.length > raw.cluster_size:
        raise Malformed("the header is longer than a cluster")
    if raw.refcount_order > 6:
        raise Malformed(f"refcounts of 2^{raw.refcount_order} bits are not allowed")
    if raw.size % 512:
        raise Malformed(f"the virtual size {raw.size} is not a multiple of 512")


def _check_tables(raw: _Raw, read: Read, file_size: int) -> None:
    l2_entry = 16 if raw.incompatible & _EXTENDED_L2 else 8
    covered = raw.cluster_size * (raw.cluster_size // l2_entry)
    if raw.l1_entries * 8 > _L1_LIMIT:
        raise Malformed(f"the first-level table claims {raw.l1_entries} entries")
    if raw.l1_entries * covered < raw.size:
        raise Malformed("the first-level table is too small for the virtual size")
    _check_place("first-level table", raw.l1_offset, raw.l1_entries * 8, raw, file_size)
    refcounts = raw.refcount_clusters * raw.cluster_size
    if not refcounts or refcounts > 2 * _L1_LIMIT:
        raise Malformed(f"the refcount table claims {raw.refcount_clusters} clusters")
    _check_place("refcount table", raw.refcount_offset, refcounts, raw, file_size)
    if raw.snapshots > 65536:
        raise Malformed(f"the header claims {raw.snapshots} snapshots")
    if raw.snapshots:
        _check_place("snapshot table", raw.snapshots_offset, 40 * raw.snapshots, raw, file_size)
    table = read(raw.l1_offset, raw.l1_entries * 8)
    for (entry,) in struct.iter_unpack(">Q", table):
        if (entry & _OFFSET_MASK) + raw.cluster_size > file_size and entry & _OFFSET_MASK:
            raise Malformed("it is cut short: a second-level table lies beyond its end")


def _check_place(what: str, offset: int, length: int, raw: _Raw, file_size: int) -> None:
    if length and (not offset or offset % raw.cluster_size):
        raise Malformed(f"the {what} is not at the start of a cluster")
    if offset + length > file_size:
        raise Malformed(f"it is cut short: the {what} lies beyond its end")


def _extensions(raw: _Raw, read: Read) -> Iterator[tuple[int, bytes]]:
    place, end = raw.length, raw.backing_offset or raw.cluster_size
    while place + _EXTENSION.size <= end:
        head = read(place, _EXTENSION.size)
        if len(head) < _EXTENSION.size:
            raise Malformed("it is cut short within its header extensions")
        kind, length = _EXTENSION.unpack(head)
        place += _EXTENSION.size
        if kind == _END:
            return
        if place + length > end:
            raise Malformed(f"header extension {kind:#x} reaches beyond the header")
        # The names of files are short; other extensions are large tables that nobody here needs.
        yield kind, read(place, min(length, _NAME_LIMIT + 1))
        place += (length + 7) & ~7


def _backing_file(raw: _Raw, read: Read) -> str:
    if not raw.backing_offset:
        return ""
    if not 0 < raw.backing_length <= _NAME_LIMIT or raw.backing_offset + raw.backing_length > raw.cluster_size:
        raise Malformed("the name of its backing file lies outside the header")
    name = read(raw.backing_offset, raw.backing_length)
    if len(name) < raw.backing_length:
        raise Malformed("it is cut short within the name of its backing file")
    return _text(name)


def _text(name: bytes) -> str:
    """Names of files as a person may see them: what is no printable character is escaped."""
    text = name.decode(errors="backslashreplace")
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
