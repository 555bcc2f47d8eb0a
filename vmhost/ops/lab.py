"""Labs, for the faces."""

from __future__ import annotations

from vmhost.lab import Kernel, Lab, Status, down, enter_shell, labs, replace_by, up
from vmhost.lab.init import BRIDGE, BRIDGE_ADDRESS

__all__ = ["BRIDGE", "BRIDGE_ADDRESS", "Kernel", "Lab", "Status", "down", "enter_shell", "labs", "replace_by", "up"]
