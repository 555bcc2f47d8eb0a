"""What a guest is told of its processors and memory cells: a picture of the pCPUs and cells that it has."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GuestCell:
    """One NUMA cell of a guest: its vCPUs (``0-3``, empty for none), its memory in bytes, the host's cell that it comes
    from, and the distance to every cell of the guest; none where the host's firmware tells none.
    """

    vcpus: str
    memory: int
    host: int
    distances: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Shape:
    """A guest's processors: so many sockets, of so many dies, and so on; ``cells`` only where there are several."""

    sockets: int = 1
    dies: int = 1
    cores: int = 1
    threads: int = 1
    cells: tuple[GuestCell, ...] = ()

    def __str__(self) -> str:
        told = f"{self.sockets}x{self.dies}x{self.cores}x{self.threads}"
        return f"{told} in {len(self.cells)} cells" if self.cells else told
