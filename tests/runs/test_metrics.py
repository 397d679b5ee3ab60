"""metrics.jsonl has no lost, duplicated or incomplete line, and TensorBoard can read the event files."""

import json
import struct
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet_flax.runs.directory import RunDirectory
from resnet_flax.runs.file_names import METRICS
from resnet_flax.runs.metrics import MetricsLog


def line(step):
    return {"step": step, "train_loss": 1 / step, "test_error": step / 100}


def write(workdir, begin, steps):
    with RunDirectory(workdir).metrics_log(begin) as log:
        for step in steps:
            log.write(line(step))


def crc32c(data):
    """CRC-32C (Castagnoli) computed bit by bit, independent of the writer's table."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def events(workdir):
    """Reads the events of every file in order: TFRecords of Event messages, whose checksums are verified."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(workdir.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while len(content) >= 12:
            (length,), (length_crc,) = struct.unpack("<Q", content[:8]), struct.unpack("<I", content[8:12])
            if len(content) < 16 + length:
                break  # a crash cut it short
            data, (data_crc,) = content[12 : 12 + length], struct.unpack("<I", content[12 + length : 16 + length])
            assert (masked(content[:8]), masked(data)) == (length_crc, data_crc)
            found.append(Event.FromString(data))
            content = content[16 + length :]
    return found


def scalars(workdir):
    """The series that TensorBoard draws, {tag: {step: value}}, without values that a later start invalidated."""
    from tensorboardX.proto.event_pb2 import SessionLog

    drawn = {}
    for event in events(workdir):
        if event.HasField("session_log") and event.session_log.status == SessionLog.START:
            drawn = {tag: {s: v for s, v in series.items() if s < event.step} for tag, series in drawn.items()}
        for value in (v for v in event.summary.value if v.HasField("simple_value")):
            series = drawn.setdefault(value.tag, {})
            assert event.step not in series, f"{value.tag} is there twice at step {event.step}"
            series[event.step] = value.simple_value
    return drawn


def test_the_reference_checksum_gives_the_published_value():
    """RFC 3720, B.4, gives the checksum of 32 zero bytes."""
    assert crc32c(bytes(32)) == 0x8A9136AA


def test_lines_are_on_disk_as_soon_as_they_are_written(tmp_path):
    with RunDirectory(tmp_path).metrics_log(0) as log:
        for step in (1, 2):
            log.write(line(step))
            assert [json.loads(text) for text in (tmp_path / METRICS).read_text().splitlines()] == [
                line(s) for s in range(1, step + 1)
            ]


def test_events_hold_the_same_numbers(tmp_path):
    write(tmp_path, 0, [1, 2, 3])
    assert events(tmp_path)[0].file_version == "brain.Event:2"
    drawn = scalars(tmp_path)
    assert drawn.keys() == {"train_loss", "test_error"}
    for tag, series in drawn.items():
        assert series == {s: pytest.approx(line(s)[tag], rel=1e-6) for s in (1, 2, 3)}


@pytest.mark.parametrize("resumed_at", [0, 2, 3])
def test_lines_and_events_after_the_resumed_step_are_written_again(tmp_path, monkeypatch, resumed_at):
    write(tmp_path, 0, [1, 2, 3])
    clock = __import__("time").time
    monkeypatch.setattr("time.time", lambda: clock() + 10)  # event files are named by the second
    write(tmp_path, resumed_at, range(resumed_at + 1, 6))
    assert RunDirectory(tmp_path).metrics() == [line(s) for s in range(1, 6)]
    assert {tag: list(series) for tag, series in scalars(tmp_path).items()} == {
        "train_loss": [1, 2, 3, 4, 5], "test_error": [1, 2, 3, 4, 5],
    }  # fmt: skip


@given(cut=st.integers(1, len(json.dumps(line(3)))))
def test_a_line_that_a_crash_cut_short_is_left_out_and_written_again(tmp_path_factory, cut):
    workdir = tmp_path_factory.mktemp("cut")
    whole = "".join(json.dumps(line(s)) + "\n" for s in (1, 2, 3))
    (workdir / METRICS).write_text(whole[: -1 - cut])
    assert RunDirectory(workdir).metrics() == [line(1), line(2)]
    write(workdir, 2, [3])
    assert (workdir / METRICS).read_text() == whole


def test_trackers_are_closed_if_the_file_cannot_be(tmp_path):
    """Regression test: on a full disk, closing the file fails again, and no tracker was closed."""
    closed = []
    log = MetricsLog(tmp_path / METRICS, [])
    log.trackers = [SimpleNamespace(close=lambda name=name: closed.append(name)) for name in "ab"]
    log._file.close()
    log._file = open("/dev/full", "wb")  # noqa: SIM115 (closed by the log)
    log._file.write(b"a line")
    with pytest.raises(OSError, match="No space left on device"), log:
        pass
    assert sorted(closed) == ["a", "b"]


def test_pytorch_is_not_imported_to_write_events(tmp_path):
    """The import would take seconds in every run. A separate process, because another test may have imported it."""
    from tests.commands import command

    program = (
        "import sys; from pathlib import Path; from resnet_flax.runs.directory import RunDirectory\n"
        f"with RunDirectory(Path({str(tmp_path)!r})).metrics_log(0) as log: log.write({line(1)!r})\n"
        "assert 'torch' not in sys.modules; assert 'tensorflow' not in sys.modules"
    )
    code, output = command("-c", program)
    assert code == 0, output
    assert list(scalars(tmp_path)["train_loss"]) == [1]
