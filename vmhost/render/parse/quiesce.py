"""What is asked of a guest about freezing, where its agent has no question of its own for it."""

from __future__ import annotations

from typing import Final

TOLD: Final = b"told"
"""What :data:`HOOKS_ARGV` prints when programs of the guest are told before its file systems freeze."""

_HOOKS: Final = (
    "d=/etc/qemu/fsfreeze-hook; [ -x $d ] || exit 0; "
    '[ ! -d $d.d ] || [ -n "$(find -L $d.d -type f -perm -100 | head -n 1)" ] || exit 0; echo told'
)
HOOKS_ARGV: Final = ("/bin/sh", "-c", _HOOKS)

_THAW: Final = (
    'while read -r d m _; do case $d in /*) fsfreeze --unfreeze "$(printf \'%b\' "$m")" 2>/dev/null;; esac; done '
    "</proc/self/mounts; true"
)
THAW_ARGV: Final = ("/bin/sh", "-c", _THAW)
