"""Threads that are awaited: in order, with what they raise, and with Ctrl-C heard whenever it comes."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from vmhost.engine import together

ASLEEP = """
import signal, threading, time
from concurrent.futures import ThreadPoolExecutor
from vmhost.engine import together

heard = threading.Event()
signal.signal(signal.SIGINT, lambda *_: heard.set())

def work(_):
    time.sleep(0.3)  # by now the main thread sleeps; nothing tells when
    # The signal reaches this thread alone: the main one sleeps on, as if it had come right before.
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)
    return heard.wait(20)

with ThreadPoolExecutor(1) as pool:
    print(*together.side_by_side(pool, work, [1]))
"""


def test_a_signal_that_does_not_wake_the_waiting_thread_is_heard_soon() -> None:
    done = subprocess.run([sys.executable, "-c", ASLEEP], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "True\n"


def test_results_come_in_order_and_errors_at_their_place() -> None:
    gate = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            gate.wait(20)
        else:
            gate.set()
        if number == 2:
            raise ValueError(number)
        return number

    with ThreadPoolExecutor(3) as pool, pytest.raises(ValueError, match="2"):
        list(together.side_by_side(pool, work, range(3)))
    with ThreadPoolExecutor(3) as pool:
        assert list(together.side_by_side(pool, work, range(2))) == [0, 1]
