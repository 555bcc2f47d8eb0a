"""The templates of guests and seeds: packaged ones, and overrides from the configuration directory."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from shlex import quote

from vmhost.model.errors import DriverError, NotFound
from vmhost.render.templates import Templates

SUFFIX = ".j2"
LARGEST = 1 << 20


def load_templates(kind: str, config: Path) -> Templates:
    """Return the templates of a kind (``domain_templates`` or ``cloud-init``).

    A file of the same name under ``config/KIND`` takes the place of a packaged one, and runs in Jinja2's sandbox.

    :raises NotFound: the installation lacks its templates; :raises DriverError: an override cannot be read.
    """
    overrides = _overrides(config / kind)
    if not overrides:
        return _unchanged(kind)
    return Templates({**dict(_packaged(kind)), **overrides}, sandboxed=True)


@cache
def _unchanged(kind: str) -> Templates:
    """Return the packaged templates, compiled once in a process: compiling costs more than a whole plan."""
    return Templates(dict(_packaged(kind)), sandboxed=False)


@cache
def _packaged(kind: str) -> tuple[tuple[str, str], ...]:
    found = tuple(sorted(_walk(_home(kind), "")))
    if not found:
        raise NotFound(
            f"the templates {kind} are missing from this installation", hint="pip install --force-reinstall vmhost"
        )
    return found


def _home(kind: str) -> Traversable:
    """Return where the templates are: inside the wheel, or beside the package in a checkout."""
    inside = files("vmhost.data") / kind
    return inside if inside.is_dir() else Path(str(files("vmhost"))).parent / kind


def _walk(directory: Traversable, prefix: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for entry in directory.iterdir() if directory.is_dir() else ():
        if entry.is_dir():
            found += _walk(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(SUFFIX):
            found.append((prefix + entry.name, entry.read_text(encoding="utf-8")))
    return found


def _overrides(directory: Path) -> dict[str, str]:
    texts: dict[str, str] = {}
    for path in sorted(directory.rglob(f"*{SUFFIX}")) if directory.is_dir() else ():
        try:
            if path.stat().st_size > LARGEST:
                raise DriverError(
                    "this template is larger than 1 MiB", subject=str(path), hint=f"ls -l {quote(str(path))}"
                )
            texts[str(path.relative_to(directory))] = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DriverError(
                f"cannot read this template: {error}", subject=str(path), hint=f"ls -l {quote(str(path))}"
            ) from error
    return texts
