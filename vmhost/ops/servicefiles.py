"""What stands beside a site file for its services: texts of files, and secrets by path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vmhost.model.spec.cloudinit import FILES_LIMIT
from vmhost.model.spec.faults import Key
from vmhost.model.units import shown
from vmhost.ops.textfile import TextFault, read_text

Found = list[tuple[tuple[Key, ...], str]]


def read_service_files(services: Any, base: Path) -> Found:
    """Put the content of files into a site's data and make the paths of secrets absolute; return the faults.

    What has another form than it should is left to the models.
    """
    found: Found = []
    for name, service in services.items() if isinstance(services, dict) else ():
        for number, file in enumerate(_files(service)):
            found += [(("services", name, "files", number, "source"), text) for text in _fill(file, base)]
        for reference in _references(service):
            if isinstance(reference.get("file"), str) and reference["file"]:
                reference["file"] = str(base.absolute() / _home(reference["file"]))
    return found


def _files(service: Any) -> list[Any]:
    files = service.get("files") if isinstance(service, dict) else None
    return files if isinstance(files, list) else []


def _fill(file: Any, base: Path) -> Iterator[str]:
    source = file.get("source") if isinstance(file, dict) else None
    if not isinstance(source, str) or not source or not source.isprintable():
        return
    if file.get("content") is not None or file.get("secret") is not None:
        yield "a file needs exactly one of content, source and secret"
        return
    try:
        file["content"] = read_text(base / _home(source), FILES_LIMIT)
    except (OSError, TextFault) as error:
        file["content"] = ""
        reason = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
        yield f"{shown(source)} {reason}"


def _references(service: Any) -> Iterator[dict[str, Any]]:
    for file in _files(service):
        if isinstance(file, dict) and isinstance(file.get("secret"), dict):
            yield file["secret"]
    environment = service.get("environment") if isinstance(service, dict) else None
    for value in environment.values() if isinstance(environment, dict) else ():
        if isinstance(value, dict):
            yield value


def _home(file: str) -> Path:
    try:
        return Path(file).expanduser()
    except RuntimeError:
        return Path(file)
