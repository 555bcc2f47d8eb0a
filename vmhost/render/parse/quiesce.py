"""What is asked of a guest about freezing, where its agent has no question of its own for it."""

from __future__ import annotations

from typing import Final

TOLD: Final = b"told"
"""What :data:`HOOKS_ARGV` prints when programs of the guest are told before its file systems freeze."""

_HOOKS: Final = (
    "d=/etc/qemu/fsfreeze-hook; [ -x $d ] || exit 0; "
    '! grep -qs fsfreeze-hook.d $d || [ -n "$(find -L $d.d -type f -perm -100 | head -n 1)" ] || exit 0; echo told'
)
"""The hook that QEMU comes with tells those in a directory beside it, and nobody where that is empty."""
HOOKS_ARGV: Final = ("/bin/sh", "-c", _HOOKS)

_THAW: Final = r"""command -v fsfreeze >/dev/null || { echo "there is no fsfreeze" >&2; exit 1; }
bad=0
while read -r device place _; do
    case $device in /*) ;; *) continue ;; esac
    said=$(LC_ALL=C fsfreeze --unfreeze "$(printf %b "$place")" 2>&1) && continue
    case $said in *"Invalid argument"*) ;; *) echo "$said" >&2; bad=1 ;; esac
done </proc/self/mounts
exit $bad
"""
"""Thaws every file system on a device; that one is not frozen is no failure (EINVAL of thaw_super in Linux)."""

THAW_ARGV: Final = ("/bin/sh", "-c", _THAW)
