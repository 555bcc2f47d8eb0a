"""A connection to one hypervisor, before anything is done with it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Self

from vmhost.ops.build import FAKE, Builder

if TYPE_CHECKING:
    from vmhost.ports import Hypervisor, Ports


class Connected:
    """What reaches one hypervisor, each part built on first use; see :class:`vmhost.Host`."""

    def __init__(self, uri: str | None = None, *, ports: Ports | None = None) -> None:
        self._builder = Builder(uri)
        self._given = ports

    @cached_property
    def ports(self) -> Ports:
        """Everything that the engine may touch; built on first use."""
        if self._given is not None:
            return self._given
        if self._builder.uri and self._fake:
            from vmhost.testing.demo import demo_ports

            return demo_ports(self._builder.uri)
        return self._builder.ports

    @property
    def hypervisor(self) -> Hypervisor:
        """The libvirt connection alone, for listings that need nothing else."""
        return self.ports.hypervisor if self._whole else self._builder.hypervisor

    @property
    def ledger(self) -> Ports | Builder:
        """What needs no libvirt: history, journals, clock, chance, layout, images."""
        return self.ports if self._whole else self._builder

    @property
    def _fake(self) -> bool:
        return (self._builder.uri or "").startswith(FAKE)

    @property
    def _whole(self) -> bool:
        """Whether all ports are there from the beginning, so that none is built apart."""
        return self._given is not None or self._fake

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; the host goes on as it is."""
        built = self.__dict__.get("ports") or self._builder.__dict__.get("hypervisor")
        if built is not None:
            getattr(built, "hypervisor", built).close()
