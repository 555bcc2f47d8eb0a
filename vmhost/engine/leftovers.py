"""The command that removes by hand what an undo could not remove."""

from __future__ import annotations

import shlex

from vmhost.model import backupsteps, steps
from vmhost.model.drills import EndDrill
from vmhost.model.reach import AccessPort
from vmhost.model.snapsteps import PostThaw, Thaw
from vmhost.model.steps import Step


def by_hand(step: Step, error: Exception) -> str:
    """Return the command that does what a step could not; a volume that somebody has open is nobody's to delete."""
    later = isinstance(step, steps.DeleteVolume) and getattr(error, "retryable", False)
    return "vmhost recover" if later else leftover(step)


def leftover(undo: Step) -> str:  # noqa: C901 - one match over steps
    """Return the command that does what the undo step could not."""
    match undo:
        case steps.DeleteVolume(pool, name):
            return shlex.join(("virsh", "vol-delete", "--pool", pool, name))
        case steps.UndefineDomain(_, name):
            return shlex.join(("virsh", "undefine", "--nvram", "--managed-save", name))
        case steps.PowerOff(_, name):
            return shlex.join(("virsh", "destroy", "--graceful", name))
        case steps.DeleteBridge(name, _):
            return shlex.join(("ip", "link", "delete", name))
        case steps.CloseAccess(bridge, vid, address, _):
            return shlex.join(("ip", "netns", "delete", AccessPort(bridge, vid, address).namespace))
        case steps.RemoveHook():
            return "rm /etc/libvirt/hooks/qemu.d/50-vmhost"
        case steps.UnplugNic(_, name, mac):
            return shlex.join(("virsh", "detach-interface", name, "bridge", "--mac", mac, "--live"))
        case steps.DeletePool(name):
            return shlex.join(("virsh", "pool-undefine", name))
        case steps.StartDomain(_, name):
            return shlex.join(("virsh", "start", name))
        case Thaw(_, name) | PostThaw(_, name):
            return shlex.join(("vmhost", "snapshot", "thaw", name))
        case steps.SetAutostart(_, name, on):
            return shlex.join(("virsh", "autostart", *(() if on else ("--disable",)), name))
        case backupsteps.EndBackup(_, name):
            return shlex.join(("virsh", "domjobabort", name))
        case EndDrill(_, name):
            return shlex.join(("virsh", "destroy", name))
        case backupsteps.RemoveFile(path):
            return shlex.join(("rm", path))
        case _:
            return "vmhost recover"
