"""pyroute2 without all that its front door loads: what runs at every start of a guest should wait for nothing else."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Final

_NAME: Final = "pyroute2"


def load_lean() -> None:
    """Let ``from pyroute2 import IPRoute`` load the netlink socket alone, not NDB, nftables, ethtool and the rest.

    Where the library is laid out in another way than in 0.9, it is loaded as it comes.
    """
    found = find_spec(_NAME)
    if _NAME in sys.modules or found is None or found.submodule_search_locations is None:
        return
    package: Any = ModuleType(_NAME)
    package.__path__, package.__spec__ = list(found.submodule_search_locations), found
    sys.modules[_NAME] = package
    try:
        from pyroute2.iproute.linux import IPRoute
    except ImportError:
        for name in [name for name in sys.modules if name == _NAME or name.startswith(f"{_NAME}.")]:
            del sys.modules[name]
    else:
        package.IPRoute = IPRoute
