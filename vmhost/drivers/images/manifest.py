"""The manifest beside each image: what the store knows of it, as JSON. An image without one does not exist."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, get_args

from vmhost.drivers.files import os_errors, write_atomically
from vmhost.model.errors import DamagedData
from vmhost.model.image import Firmware, ImageRecord, Source, Status
from vmhost.model.units import check_name

API: Final = "vmhost/v1"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_CREATED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def stem(name: str, identity: str) -> str:
    """Return the name of an image's files without suffix: ``debian-12-3fa91c4b77d0``."""
    return f"{name}-{identity[:12]}"


def write(record: ImageRecord, contents: Mapping[str, str]) -> None:
    """Write the manifest of an image whose file is whole and in place; from then on others see it.

    :param contents: what is known of its inside, for people: ``{"kernel": "6.1.0-56-cloud-amd64", ...}``.
    """
    document = {
        "apiVersion": API,
        "kind": "Image",
        "name": record.name,
        "id": record.id,
        "file": record.path.name,
        "format": record.format,
        "virtual_size": record.virtual_size,
        "size": record.size,
        "sha256": record.sha256,
        "created": record.created,
        "firmware": sorted(record.firmware),
        "source": record.source,
        "status": record.status,
        "contents": dict(contents),
    }
    path = record.path.with_suffix(".json")
    write_atomically(path, json.dumps(document, indent=1).encode() + b"\n", mode=0o644)


def read(path: Path) -> ImageRecord:
    """Read a manifest. It names a file beside itself and nothing else.

    :raises Absent: there is none; :raises DamagedData: it is not a manifest of ours.
    """
    with os_errors(path, "read"):
        text = path.read_bytes()
    try:
        record = _record(json.loads(text), path)
    except (ValueError, KeyError, TypeError) as error:
        hint = f"mv {shlex.quote(str(path))} {shlex.quote(f'{path}.damaged')}"
        raise DamagedData(f"is not the manifest of an image: {error}", subject=str(path), hint=hint) from error
    return record


def _record(document: Any, path: Path) -> ImageRecord:
    if document["apiVersion"] != API or document["kind"] != "Image":
        raise ValueError(f"it is a {document['kind']} of {document['apiVersion']}")
    name, identity, file_format = check_name(document["name"]), document["id"], document["format"]
    firmware = frozenset(_one_of(Firmware, way) for way in document["firmware"])
    if file_format not in ("qcow2", "raw"):
        raise ValueError(f"format {file_format}")
    if not (_DIGEST.fullmatch(identity) and _DIGEST.fullmatch(document["sha256"])):
        raise ValueError("a digest is no SHA-256")
    if not _CREATED.fullmatch(document["created"]):
        raise ValueError("the time of its making is not ISO 8601 in UTC")
    if path.stem != stem(name, identity) or document["file"] != f"{path.stem}.{file_format}":
        raise ValueError("its names contradict each other")
    return ImageRecord(
        name=name,
        id=identity,
        path=path.with_name(document["file"]),
        format=file_format,
        virtual_size=int(document["virtual_size"]),
        size=int(document["size"]),
        sha256=document["sha256"],
        created=document["created"],
        firmware=firmware,
        source=_one_of(Source, document["source"]),
        status=_one_of(Status, document["status"]),
    )


def _one_of(words: Any, word: str) -> Any:
    if word not in get_args(words):
        raise ValueError(f"{word!r} is none of {', '.join(get_args(words))}")
    return word
