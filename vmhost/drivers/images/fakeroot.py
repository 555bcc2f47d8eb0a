"""File systems with every owner, made by root or by an ordinary user."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from vmhost.drivers.command import Completed, run

_NAMESPACE = ("unshare", "--user", "--map-root-user", "--map-auto", "--")


def as_root_of_namespace(argv: Sequence[str], *, timeout: float, env: Mapping[str, str] | None = None) -> Completed:
    """Run a program as root, or as root of a user namespace with all ids of ``/etc/subuid`` (user_namespaces(7)).

    :param timeout: seconds that it may take.
    """
    prefix = () if os.geteuid() == 0 else _NAMESPACE
    return run([*prefix, *argv], timeout=timeout, env=env)
