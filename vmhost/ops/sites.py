"""Site files: read, checked, resolved; every fault at once, with its line."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from shlex import quote
from typing import Any, Final

from vmhost.model.errors import DriverError, Fault, NotFound, PermissionDenied, SpecError
from vmhost.model.spec import API_VERSION, Site, SiteInput
from vmhost.model.spec.cloudinit import USER_DATA_LIMIT
from vmhost.model.spec.faults import Key, as_faults, faults_of
from vmhost.model.units import shown
from vmhost.ops.cloudinit import check_user_data
from vmhost.ops.servicefiles import read_service_files
from vmhost.ops.textfile import TextFault, read_text
from vmhost.ops.yamlfile import Tree, read_tree

SITE_LIMIT: Final = 1 << 20
MOST_FAULTS: Final = 200
HINT: Final = "vmhost schema"
_SECTIONS: Final = ("bridges", "networks", "profiles", "guests", "services")
_DEPTHS: Final = {"bridges": 2, "networks": 2, "profiles": 3, "guests": 3, "services": 3, "defaults": 2}

Found = list[tuple[tuple[Key, ...], str]]


class _Everything(Container[str]):
    """Contains every name: stands for a section that could not be read at all."""

    def __contains__(self, name: object) -> bool:
        return True


def load_site(path: str | Path) -> Site:
    """Read a site file, with the files of user-data that it names, and return the site with nothing left open.

    :param path: a YAML file (1.2, UTF-8) of at most 1 MiB.
    :raises NotFound: there is no such file.
    :raises PermissionDenied: it may not be read.
    :raises SpecError: every fault of the file at once, each with its line.
    """
    path = Path(path)
    try:
        text = read_text(path, SITE_LIMIT)
    except FileNotFoundError:
        raise NotFound("there is no such file", subject=str(path), hint="ls *.yaml") from None
    except PermissionError:
        raise PermissionDenied(
            "this file may not be read", subject=str(path), hint=f"ls -l {quote(str(path))}"
        ) from None
    except OSError as error:
        raise DriverError(
            f"cannot be read: {error.strerror}", subject=str(path), hint=f"ls -l {quote(str(path))}"
        ) from None
    except TextFault as fault:
        raise SpecError([Fault("", str(fault))], subject=str(path), hint=f"file {quote(str(path))}") from None
    return parse_site(text, str(path), base=path.parent)


def parse_site(text: str, name: str = "<text>", *, base: Path | None = None) -> Site:
    """Return the site that a text says, with nothing left open.

    :param name: what messages call the text.
    :param base: the directory that relative paths start from; the working directory if None.
    :raises SpecError: every fault at once, each with its line.
    """
    tree = read_tree(text)
    if not tree.readable:
        raise SpecError(tree.faults, subject=name, hint=HINT)
    if not isinstance(tree.data, dict):
        what = "the file is empty" if tree.data is None else "a site is a mapping"
        raise SpecError([Fault("", f"{what}: begin with apiVersion: {API_VERSION}", 1)], subject=name, hint=HINT)
    faults = _read_beside(tree.data, base or Path())
    written, broken, found = _validate(tree.data)
    faults += found
    site, unresolved = _examine(written, name, broken)
    if tree.faults or faults or unresolved:
        raise SpecError(_placed(tree, [*as_faults(faults), *unresolved]), subject=name, hint=HINT)
    return site


def site_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a site file, for editors that complete and check while one types."""
    schema = SiteInput.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "vmhost site"}


def _examine(written: SiteInput, name: str, broken: dict[str, Container[str]]) -> tuple[Site, tuple[Fault, ...]]:
    from vmhost.plan.resolve import examine

    return examine(written, name, broken)


def _placed(tree: Tree, faults: list[Fault]) -> list[Fault]:
    """Return all faults with their lines, in the order of the file."""
    placed = [*tree.faults, *(Fault(fault.path, fault.message, tree.line(fault.path)) for fault in faults)]
    ordered = sorted(dict.fromkeys(placed), key=lambda fault: (fault.line, fault.path))
    if len(ordered) > MOST_FAULTS:
        rest = len(ordered) - MOST_FAULTS
        return [*ordered[:MOST_FAULTS], Fault("", f"and {rest} further faults")]
    return ordered


def _validate(data: dict[str, Any]) -> tuple[SiteInput, dict[str, Container[str]], Found]:
    """Return what can be read, what had to be left out for that, and the faults.

    What has faults is taken out: of guests, profiles and the defaults the faulty keys, of anything else the entry. So
    the rest can be checked, too.
    """
    from pydantic import ValidationError

    broken: dict[str, Container[str]] = {}
    names: dict[str, set[str]] = {}
    found: Found = []
    data = dict(data)
    while True:
        try:
            return SiteInput.model_validate(data), {**names, **broken}, found
        except ValidationError as error:
            faults = faults_of(error, SiteInput, data)
        found += faults
        before = data
        for path, _ in faults:
            section, *inside = (str(key) for key in path)
            data = _without(data, path[: _DEPTHS.get(section, 1)])
            if inside and section in _SECTIONS:
                names.setdefault(section, set()).add(inside[0])
            else:
                broken[section] = _Everything()
        data = {"apiVersion": API_VERSION, "name": "unnamed", **data}
        if data == before:
            raise SpecError(as_faults(found), hint=HINT)


def _without(data: Any, path: Sequence[Key]) -> Any:
    """Return data without what is at a path; the given data stays as it is."""
    if not isinstance(data, dict) or path[0] not in data:
        return data
    rest = {key: value for key, value in data.items() if key != path[0]}
    return rest if len(path) == 1 else {**data, path[0]: _without(data[path[0]], path[1:])}


def _read_beside(data: dict[str, Any], base: Path) -> Found:
    """Put the content of user-data files into the data and make the paths of secrets absolute; return the faults.

    What has another form than it should is left to the models.
    """
    found: Found = []
    for path, seed in _cloud_inits(data):
        user_data = seed.get("user_data")
        if isinstance(user_data, str):
            seed["user_data"] = user_data = {"file": user_data}
        if isinstance(user_data, dict):
            found += [((*path, "user_data", *key), text) for key, text in _fill_user_data(user_data, base)]
        for reference in _references(seed):
            if isinstance(reference.get("file"), str) and reference["file"]:
                reference["file"] = str(base.absolute() / _home(reference["file"]))
    return found + read_service_files(data.get("services"), base)


def _fill_user_data(user_data: dict[str, Any], base: Path) -> Found:
    file, content = user_data.get("file"), user_data.get("content")
    if isinstance(file, str) and content is not None:
        return [((), "needs either file or content, and not both")]
    if isinstance(file, str) and file.isprintable() and file:
        try:
            content = read_text(base / _home(file), USER_DATA_LIMIT)
        except (OSError, TextFault) as error:
            user_data["content"] = ""
            reason = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
            return [((), f"{shown(file)} {reason}")]
        user_data["content"] = content
    if not isinstance(content, str):
        return []
    return [((), _told(file, fault)) for fault in check_user_data(content)]


def _home(file: str) -> Path:
    """Return a path with a leading ``~`` replaced; as it stands when there is no such home."""
    try:
        return Path(file).expanduser()
    except RuntimeError:
        return Path(file)


def _told(file: Any, fault: Fault) -> str:
    return f"{shown(file)}: {fault}" if isinstance(file, str) else str(fault)


def _cloud_inits(data: dict[str, Any]) -> Iterator[tuple[tuple[Key, ...], dict[str, Any]]]:
    """Yield every ``cloud_init`` mapping of the file with its path."""
    places: list[tuple[tuple[Key, ...], Any]] = [(("defaults",), data.get("defaults"))]
    for section in ("profiles", "guests"):
        entries = data.get(section)
        places += [((section, name), entry) for name, entry in entries.items()] if isinstance(entries, dict) else []
    for path, place in places:
        seed = place.get("cloud_init") if isinstance(place, dict) else None
        if isinstance(seed, dict):
            yield (*path, "cloud_init"), seed


def _references(seed: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for section, key in (("users", "password_hash"), ("files", "secret")):
        entries = seed.get(section)
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict) and isinstance(entry.get(key), dict):
                yield entry[key]
