"""Labs, for the faces."""

from __future__ import annotations

from vmhost.lab import Lab, Status, down, enter_shell, labs, replace_by, up
from vmhost.lab.init import BRIDGE, BRIDGE_ADDRESS

__all__ = ["BRIDGE", "BRIDGE_ADDRESS", "Lab", "Status", "down", "enter_shell", "labs", "replace_by", "up"]
