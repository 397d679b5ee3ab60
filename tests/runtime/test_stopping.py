"""Tests that the first signal is remembered, a second SIGINT acts at once, and earlier handlers are restored."""

import os
import signal
import threading

import pytest

from resnet_flax.runtime.stopping import StopRequest
from tests import commands


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_remembered(number):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert stop.received is None
        os.kill(os.getpid(), number)
        assert stop.received == number.name
        os.kill(os.getpid(), signal.SIGTERM)  # a scheduler may repeat its signal
        assert stop.received == number.name
    assert signal.getsignal(number) is before


def test_a_second_sigint_raises_at_once():
    def twice():
        with StopRequest():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        twice()


def test_in_another_thread_signals_are_left_alone():
    handlers = []

    def enter():
        with StopRequest():
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGTERM)]


def test_a_library_that_waits_for_a_thread_does_not_keep_the_process_alive(tmp_path):
    """An example is the thread of a tracker whose server no longer answers."""
    program = (
        "import atexit, threading, time; from resnet_flax import command; from resnet_flax.runtime import stopping\n"
        "stopping._GRACE_SECONDS = 0.1; atexit.register(time.sleep, 60)\n"
        "thread = threading.Thread(target=time.sleep, args=[60], daemon=True); thread.start()\n"
        "def main(): stopping.note_stuck_thread(thread); print('done')\n"
        "command.run(main)"
    )
    assert commands.command("-c", program, timeout=30) == (0, "done\n")
