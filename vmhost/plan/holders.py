"""Who has a file: the definitions that name it, and the volumes that lie on it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from vmhost.model.domains import ObservedDomain
from vmhost.model.observed import ObservedPool, ObservedVolume
from vmhost.render.parse.domain import files_of


def holders(
    domains: Iterable[ObservedDomain],
    pools: Iterable[ObservedPool],
    but: Collection[str] = (),
    *,
    backing: Callable[[str], str] = lambda path: "",
) -> dict[str, tuple[str, ...]]:
    """Return who has each file as a disk or below one, by path: guests, and volumes that no definition names.

    :param but: guests (UUIDs) that are left out, with the volumes that carry their UUID.
    :param backing: tells what a file that lies in no pool lies on.
    """
    volumes = {volume.path: volume for pool in pools for volume in pool.volumes}
    paths = {f"{volume.pool}/{volume.name}": path for path, volume in volumes.items()}
    found: dict[str, dict[str, None]] = {}
    for domain in domains:
        if domain.uuid not in but:
            for name in files_of(domain.raw.xml) | (files_of(domain.raw.live_xml) if domain.raw.live_xml else set()):
                for path in _chain(paths.get(name, name), volumes, backing):
                    found.setdefault(path, {})[domain.name] = None
    for path, volume in volumes.items():
        if path not in found and not any(owns(uuid, volume.name) for uuid in but):
            for below in list(_chain(path, volumes, backing))[1:]:
                found.setdefault(below, {})[volume.name] = None
    return {path: tuple(names) for path, names in found.items()}


def owns(uuid: str, volume: str) -> bool:
    """Whether a volume's name says that it is a guest's: all that vmhost makes begin with the guest's UUID."""
    return volume.startswith(f"{uuid}-")


def _chain(path: str, volumes: Mapping[str, ObservedVolume], backing: Callable[[str], str]) -> Iterator[str]:
    """Yield a file and all that it lies on, each once."""
    seen = set[str]()
    while path and path not in seen:
        yield path
        seen.add(path)
        path = volumes[path].backing if path in volumes else backing(path)
