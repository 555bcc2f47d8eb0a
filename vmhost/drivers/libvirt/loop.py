"""The event loop of libvirt, in a thread of its own."""

from __future__ import annotations

import atexit
from threading import Event, Lock, Thread

import libvirt


class _Loop:
    """One for the process; it ends before the interpreter does, or libvirt would call into what is gone, and crash."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._stop = Event()
        self._thread: Thread | None = None
        self._waker = -1

    def start(self) -> None:
        """Start it, unless it runs; connections to a daemon give events only if they are opened after that."""
        with self._lock:
            if self._thread is None:
                libvirt.virEventRegisterDefaultImpl()
                self._waker = libvirt.virEventAddTimeout(-1, lambda *_: None, None)
                self._thread = Thread(target=self._run, name="libvirt-events", daemon=True)
                self._thread.start()
                atexit.register(self._end)

    def _run(self) -> None:
        while not self._stop.is_set():
            libvirt.virEventRunDefaultImpl()

    def _end(self) -> None:
        self._stop.set()
        libvirt.virEventUpdateTimeout(self._waker, 0)
        if self._thread is not None:
            self._thread.join()


loop = _Loop()
