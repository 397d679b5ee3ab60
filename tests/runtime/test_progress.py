"""Tests of progress reports: a bar on a terminal, plain lines otherwise, both with the rate and the time left."""

import os
import pty
import re
import select
import sys
import termios
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet_flax.runtime.progress import Progress, duration


class Clock:
    """A fake time.monotonic, so that rates are exact."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def test_plain_lines_if_stderr_is_not_a_terminal(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    with Progress(1000, "training", "steps", initial=200, interval=10) as progress:
        for seconds in (4, 5, 1, 9, 1):  # lines are printed after 10 and 20 s
            clock.now += seconds
            progress.update(40, "error 5%" if seconds == 1 else "")
    printed = capsys.readouterr()
    assert printed.out == ""
    # After 120 steps in 10 s, 680 are left, which take 57 s; after 200 in 20 s, 600 are left, which take 60 s. The
    # initial 200 steps do not count for the rate.
    assert printed.err.splitlines() == [
        "training: 320/1000 steps, 12 steps/s, 0:57 left, error 5%",
        "training: 400/1000 steps, 10 steps/s, 1:00 left, error 5%",
    ]


def test_the_time_left_is_unknown_before_anything_is_done(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    with Progress(10, "fetching", "KiB", interval=1) as progress:
        clock.now += 2
        progress.update(0)
    assert capsys.readouterr().err == "fetching: 0/10 KiB, 0 KiB/s, unknown time left\n"


def test_a_bar_if_stderr_is_a_terminal(monkeypatch):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    with open(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with Progress(40, "training", "steps", initial=10, interval=0) as progress:
            for _ in range(3):
                time.sleep(0.25)
                progress.update(10, "error 5%")
                if progress._done == 20:
                    progress.write("a line between")
        terminal.flush()
        shown = b""
        while b"40/40" not in shown and select.select([ours], [], [], 10)[0]:  # a read may return only a part
            shown += os.read(ours, 1 << 16)
    os.close(ours)
    shown = shown.decode()
    assert "training:  25%|" in shown  # the initial steps are shown at once
    assert "training: 100%|" in shown
    assert re.search(r"40/40 \[00:0\d<00:00, +\d+\.\d+ ?steps/s, error 5%\]", shown)
    assert re.search(r"30/40 \[00:0\d<00:0\d, ", shown)
    assert "a line between\r\n" in shown
    assert "steps, " not in shown  # no plain lines


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (59.4, "0:59"),
        (59.6, "1:00"),
        (3599.7, "1:00:00"),
        (3723, "1:02:03"),
        (float("inf"), "unknown time"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@given(st.integers(0, 10**6))
def test_a_duration_can_be_read_back(seconds):
    parts = [int(part) for part in duration(seconds).split(":")]
    assert sum(part * 60**i for i, part in enumerate(reversed(parts))) == seconds
    assert all(part < 60 for part in parts[1:])
