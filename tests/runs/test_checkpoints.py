"""Checkpoints restore the same bits, damaged ones are skipped with a warning, and the right ones are kept."""

import gc
import hashlib
import json
import math
import shutil
import threading

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_flax.errors import UserError
from resnet_flax.runs import array_checksums
from resnet_flax.runs.checkpoints import Checkpoints
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.runs.file_names import CHECKPOINTS, DAMAGED, RECORD
from resnet_flax.runs.records import record_path, record_text
from resnet_flax.runtime.hosts import Hosts
from resnet_flax.training.devices import DATA_AXIS, data_mesh, replicated


def mesh_of(devices):
    return jax.sharding.Mesh(np.array(jax.devices()[:devices]), (DATA_AXIS,), axis_types=data_mesh().axis_types)


def state_at(step, devices=8):
    """A small state whose numbers are determined by the step."""
    rng = np.random.default_rng(step)
    kernel = rng.standard_normal((64, 64)).astype(np.float32)
    state = {
        "step": np.int32(step),
        "params": {"dense": {"kernel": kernel, "bias": kernel[0]}},
        "batch_stats": {"bn": {"mean": kernel[1]}},
        "opt_state": (np.int32(step), {"dense": {"kernel": -kernel}}),
        "sums": {"loss": kernel[2, 2], "images": np.int32(7)},
    }
    return jax.device_put(state, replicated(mesh_of(devices)))


def like(devices=8):
    sharding = replicated(mesh_of(devices))
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), state_at(0))


def save(workdir, steps, **keys):
    with Checkpoints(workdir, **{"keep": 10, **keys}) as checkpoints:
        for step in steps:
            checkpoints.save(step, state_at(step))


def assert_is_of_step(state, step):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), jax.device_get(state_at(step)))


@pytest.fixture
def _collected():
    """Collects a test's garbage before the next test, to which pytest would otherwise attribute its warnings."""
    yield
    gc.collect()


def abandoned_reads(test):
    """Ignores warnings about coroutines that are never awaited: orbax abandons its other reads when one fails."""
    ignored = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    return ignored(pytest.mark.usefixtures("_collected")(test))


@pytest.mark.parametrize("devices", [1, 3, 8])
def test_the_same_bits_come_back_on_any_number_of_devices(tmp_path, devices):
    save(tmp_path, [5])
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore(like(devices))
    assert_is_of_step(restored, 5)
    assert restored["params"]["dense"]["kernel"].sharding.num_devices == devices


def test_an_empty_folder_holds_no_checkpoint(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(like()) is None
        assert (checkpoints.steps(), checkpoints.last_saved, checkpoints.best_step()) == ([], None, None)


def test_the_state_may_be_overwritten_as_soon_as_save_returns(tmp_path):
    """The next training step overwrites the same buffers, while orbax still writes."""
    step = jax.jit(lambda s: jax.tree.map(lambda a: a * 0 - 1, s), donate_argnums=0)
    with Checkpoints(tmp_path, keep=10) as checkpoints:
        for number in range(1, 6):
            state = state_at(number)
            checkpoints.save(number, state)
            jax.block_until_ready(step(state))
        checkpoints.wait()
        for number in range(1, 6):
            assert_is_of_step(checkpoints.restore(like(), number), number)


def test_lines_may_be_added_as_soon_as_save_returns(tmp_path, monkeypatch):
    """A checkpoint once stored lines that were added while it was written; restoring it duplicated them."""
    of_tree, grown = array_checksums.of_tree, threading.Event()
    monkeypatch.setattr(array_checksums, "of_tree", lambda tree: grown.wait(60) and of_tree(tree))
    lines = [json.dumps({"step": 5})]
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(5, state_at(5), lines=lines)
        lines.append(json.dumps({"step": 6}))
        grown.set()
    assert RunDirectory(tmp_path).record(5)["lines"] == lines[:1]


def test_a_step_is_saved_once(tmp_path):
    with Checkpoints(tmp_path, keep=10) as checkpoints:
        checkpoints.save(5, state_at(5))
        checkpoints.save(5, state_at(6))
    with Checkpoints(tmp_path, keep=10) as checkpoints:
        assert checkpoints.last_saved == 5
        checkpoints.save(5, state_at(6))
        assert_is_of_step(checkpoints.restore(like()), 5)


def files(workdir, step):
    found = [p for p in (workdir / CHECKPOINTS / str(step)).rglob("*") if p.is_file() and p.stat().st_size]
    return sorted(found, key=lambda p: p.stat().st_size)


def cut_the_largest(workdir, step):
    path = files(workdir, step)[-1]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_bits_of_the_largest(workdir, step):
    path = files(workdir, step)[-1]
    content = bytearray(path.read_bytes())
    for place in range(len(content) // 4, len(content) // 2):
        content[place] ^= 0xFF
    path.write_bytes(content)


def empty_all(workdir, step):
    for path in files(workdir, step):
        path.write_bytes(b"")


def delete_arrays(workdir, step):
    shutil.rmtree(workdir / CHECKPOINTS / str(step) / "default")


DAMAGES = [cut_the_largest, flip_bits_of_the_largest, empty_all, delete_arrays]


@abandoned_reads
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__)
def test_a_damaged_checkpoint_is_skipped_with_a_warning(tmp_path, damage, caplog):
    save(tmp_path, [10, 20, 30])
    damage(tmp_path, 30)
    with Checkpoints(tmp_path, keep=10) as checkpoints:
        assert_is_of_step(checkpoints.restore(like()), 20)
        assert [
            m for m in caplog.messages if m.startswith(f"checkpoint 30 of {tmp_path / CHECKPOINTS} cannot be read (")
        ]
        checkpoints.move_unreadable_after(20)
        assert (checkpoints.steps(), checkpoints.last_saved) == ([10, 20], 20)
        checkpoints.save(30, state_at(30))  # replaces the damaged one
    assert (tmp_path / DAMAGED / "30").is_dir()
    with Checkpoints(tmp_path, keep=10) as checkpoints:
        assert_is_of_step(checkpoints.restore(like()), 30)


def test_damaged_checkpoints_are_never_overwritten(tmp_path):
    for _ in range(3):
        save(tmp_path, [10, 20])
        with Checkpoints(tmp_path, keep=10) as checkpoints:
            checkpoints.move_unreadable_after(10)
    assert sorted(p.name for p in (tmp_path / DAMAGED).iterdir()) == ["20", "20-again", "20-again-again"]


@abandoned_reads
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__)
def test_one_line_says_that_all_checkpoints_are_damaged(tmp_path, damage):
    save(tmp_path, [10, 20])
    for step in (10, 20):
        damage(tmp_path, step)
    with (
        Checkpoints(tmp_path, keep=10) as checkpoints,
        pytest.raises(
            UserError, match=r"none of its checkpoints \(20, 10\) can be read; .* move the run directory away"
        ) as e,
    ):
        checkpoints.restore(like())
    assert len(str(e.value).splitlines()) == 1
    assert sorted(p.name for p in (tmp_path / CHECKPOINTS).iterdir() if p.name.isdecimal()) == ["10", "20"]


def test_a_checkpoint_that_a_crash_left_incomplete_is_ignored(tmp_path):
    save(tmp_path, [10, 20])
    folder = tmp_path / CHECKPOINTS
    (folder / "20").rename(folder / "20.orbax-checkpoint-tmp")
    assert RunDirectory(tmp_path).steps() == [10]
    with Checkpoints(tmp_path, keep=10) as checkpoints:
        assert checkpoints.steps() == [10]
        assert_is_of_step(checkpoints.restore(like()), 10)
        checkpoints.save(20, state_at(20))
    assert sorted(p.name for p in folder.iterdir()) == ["10", "20"]


def kept_of(saves, keep):
    """Computes the kept checkpoints in a simple loop: the last `keep`, and the best of those kept so far."""
    there = {}
    for step, error in saves:
        there[step] = math.inf if error is None else error
        best = min(there, key=lambda s: (there[s], -s))
        there = {s: there[s] for s in there if s in sorted(there)[-keep:] or s == best}
    return there


@settings(max_examples=12)
@given(
    errors=st.lists(st.sampled_from([None, 0.1, 0.2, 0.3]), min_size=1, max_size=5),
    keep=st.integers(1, 2),
    restarts=st.sets(st.integers(1, 4), max_size=2),
)
def test_the_last_checkpoints_and_the_best_one_are_kept(tmp_path_factory, errors, keep, restarts):
    """Restarts between the saves make no difference. Checkpoints that a signal caused have no validation error."""
    workdir = tmp_path_factory.mktemp("kept")
    saves = [(10 * i, error) for i, error in enumerate(errors, start=1)]
    checkpoints = Checkpoints(workdir, keep, keep_best=True)
    for i, (step, error) in enumerate(saves):
        if i in restarts:
            checkpoints.__exit__()
            checkpoints = Checkpoints(workdir, keep, keep_best=True)
        checkpoints.save(step, state_at(step), error)
    checkpoints.__exit__()

    expected = kept_of(saves, keep)
    measured = [s for s in expected if expected[s] < math.inf]
    with Checkpoints(workdir, read_only=True) as checkpoints:
        assert checkpoints.steps()[-keep:] == sorted(expected)[-keep:]
        assert checkpoints.best_step() == min(measured, key=lambda s: (expected[s], -s), default=None)
        assert len(checkpoints.steps()) <= keep + 1
        if measured:
            assert_is_of_step(checkpoints.restore(like(), checkpoints.best_step()), checkpoints.best_step())


@pytest.mark.parametrize("content", [b"", b'{"validation', bytes(range(128, 256))])
def test_a_damaged_validation_error_affects_only_its_checkpoint(tmp_path, caplog, content):
    with Checkpoints(tmp_path, keep=10, keep_best=True) as checkpoints:
        for step in (10, 20):
            checkpoints.save(step, state_at(step), step / 100)
    (tmp_path / CHECKPOINTS / "10" / "metrics" / "metrics").write_bytes(content)
    for keys in ({"keep": 10, "keep_best": True}, {"read_only": True}):
        with Checkpoints(tmp_path, **keys) as checkpoints:
            assert checkpoints.best_step() == 20
            assert_is_of_step(checkpoints.restore(like(), 10), 10)
    assert any(m.startswith("the validation error of checkpoint 10 cannot be read (") for m in caplog.messages)


def test_without_a_validation_split_there_is_no_best_checkpoint(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (10, 20, 30):
            checkpoints.save(step, state_at(step))
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert (checkpoints.steps(), checkpoints.best_step()) == ([20, 30], None)


def test_reading_changes_nothing_in_the_folder_and_prints_nothing(tmp_path, caplog):
    save(tmp_path, [10, 20])
    (tmp_path / CHECKPOINTS / "30.orbax-checkpoint-tmp").mkdir()  # another process is writing it

    def content():
        return {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}

    before = content()
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.steps() == [10, 20]
        assert_is_of_step(checkpoints.restore(like()), 20)
    assert content() == before
    assert caplog.messages == []


@abandoned_reads
def test_no_flipped_bit_is_restored(tmp_path, caplog):
    """Before checkpoints had checksums, 58 of 90 flipped bits in the array files were restored without a warning."""
    save(tmp_path / "whole", [10, 20])
    rng, noticed = np.random.default_rng(0), 0
    arrays = [p for p in files(tmp_path / "whole", 20) if "/default/" in str(p)]
    for number in range(40):
        shutil.copytree(tmp_path / "whole", tmp_path / "run")
        path = tmp_path / "run" / rng.choice(arrays).relative_to(tmp_path / "whole")
        content = bytearray(path.read_bytes())
        content[rng.integers(len(content))] ^= 1 << number % 8
        path.write_bytes(content)
        with Checkpoints(tmp_path / "run", keep=10) as checkpoints:
            found = checkpoints.restore(like())
        step = int(found["step"])
        assert_is_of_step(found, step)
        noticed += step == 10
        assert (step == 10) == any("checkpoint 20 of" in m and "cannot be read" in m for m in caplog.messages)
        caplog.clear()
        shutil.rmtree(tmp_path / "run")
    assert noticed > 5


def test_arrays_of_another_checkpoint_are_noticed(tmp_path, caplog):
    """Undamaged files of another checkpoint replace the checkpoint's own; only the checksums reveal it."""
    save(tmp_path, [10, 20])
    shutil.rmtree(tmp_path / CHECKPOINTS / "20" / "default")
    shutil.copytree(tmp_path / CHECKPOINTS / "10" / "default", tmp_path / CHECKPOINTS / "20" / "default")
    with Checkpoints(tmp_path, keep=10) as checkpoints:
        assert_is_of_step(checkpoints.restore(like()), 10)
    assert any("checkpoint 20 of" in m and "is not the saved one" in m for m in caplog.messages)


def averaged_at(step):
    """The state with a moving average that is twice the parameters."""
    state = state_at(step)
    return state | {"average": jax.tree.map(lambda p: 2 * p, state["params"])}


def variables_like():
    return {name: like()[name] for name in ("params", "batch_stats")}


def eval_variables(items):
    return {"params": items["average"], "batch_stats": items["batch_stats"]}


def save_averaged(workdir):
    with Checkpoints(workdir, keep=10) as checkpoints:
        for step in (10, 20):
            checkpoints.save(step, averaged_at(step))


@abandoned_reads
@pytest.mark.parametrize("content", ["another checkpoint's", "a name damaged"])
def test_variables_for_evaluation_are_checked(tmp_path, caplog, content):
    """If the name of the average is damaged, the parameters are not evaluated instead."""
    save_averaged(tmp_path)
    place = tmp_path / CHECKPOINTS / "20" / "default"
    if content == "another checkpoint's":
        shutil.rmtree(place)
        shutil.copytree(tmp_path / CHECKPOINTS / "10" / "default", place)
    else:
        described = place / "_METADATA"
        assert '"average"' in described.read_text()
        described.write_text(described.read_text().replace("average", "averagf"))
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        found = checkpoints.restore_variables(variables_like())
    right = jax.device_get(eval_variables(averaged_at(10)))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), right)
    assert any("checkpoint 20 of" in m and "cannot be read" in m for m in caplog.messages)


def test_arrays_that_evaluation_does_not_read_are_not_checked(tmp_path, caplog):
    save_averaged(tmp_path)
    record = RunDirectory(tmp_path).record(20)
    for name in ("opt_state/0", "params/dense/kernel"):
        record["arrays"][name]["sha256"] = "0" * 64
    path = record_path(tmp_path / CHECKPOINTS / "20" / RECORD)
    path.write_text(record_text(record))
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        found = checkpoints.restore_variables(variables_like())
        assert checkpoints.record == record
        assert caplog.messages == []
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        whole = checkpoints.restore(like() | {"average": like()["params"]})
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), jax.device_get(eval_variables(averaged_at(20))))
    assert int(whole["step"]) == 10
    assert any("the checksum of opt_state/0 and 1 more is not the saved one" in m for m in caplog.messages)


def test_a_checkpoint_without_checksums_is_read_with_one_warning(tmp_path, caplog):
    save(tmp_path, [10])
    shutil.rmtree(tmp_path / CHECKPOINTS / "10" / "record")
    with Checkpoints(tmp_path, keep=10) as checkpoints:
        assert_is_of_step(checkpoints.restore(like()), 10)
    assert [m for m in caplog.messages if "no checksums" in m] == [
        f"checkpoint 10 of {tmp_path / CHECKPOINTS} has no checksums (an earlier version wrote it); it is read "
        f"unchecked"
    ]


def test_the_record_is_committed_with_the_arrays(tmp_path):
    lines = [json.dumps({"step": 5, "test_error": 0.5}), json.dumps({"step": 10, "test_error": 0.25})]
    with Checkpoints(tmp_path, keep=10) as checkpoints:
        checkpoints.save(10, state_at(10), lines=lines)
    record = RunDirectory(tmp_path).record(10)
    assert record["lines"] == lines
    kernel = np.asarray(state_at(10)["params"]["dense"]["kernel"])
    assert record["arrays"]["params/dense/kernel"] == {
        "dtype": "float32", "shape": [64, 64], "sha256": hashlib.sha256(kernel.tobytes()).hexdigest(),
    }  # fmt: skip
    with Checkpoints(tmp_path, keep=10) as checkpoints:
        checkpoints.restore(like())
        assert checkpoints.record == record


def test_a_changed_validation_error_does_not_change_the_best_checkpoint(tmp_path, caplog):
    with Checkpoints(tmp_path, keep=10, keep_best=True) as checkpoints:
        for step in (10, 20):
            checkpoints.save(step, state_at(step), step / 100)
    place = tmp_path / CHECKPOINTS / "20" / "metrics" / "metrics"
    place.write_text(place.read_text().replace("0.2", "0.0"))
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.best_step() == 10
    assert "the validation error of checkpoint 20 is not the saved one, 0.2" in caplog.messages


def test_a_network_of_other_shapes_is_not_called_damaged(tmp_path):
    """The checkpoints are not damaged, so the message does not advise to move the folder away."""
    save(tmp_path, [10, 20])
    other = like()
    kernel = other["params"]["dense"]["kernel"]
    other["params"]["dense"]["kernel"] = jax.ShapeDtypeStruct((64, 3), kernel.dtype, sharding=kernel.sharding)
    with Checkpoints(tmp_path, keep=10) as checkpoints, pytest.raises(UserError) as refused:
        checkpoints.restore(other)
    assert "params/dense/kernel is (64, 64) there, (64, 3) now" in str(refused.value)
    assert "checkpoints are not damaged" in str(refused.value)
    assert "move" not in str(refused.value)


@pytest.mark.parametrize("read_only", [True, False])
def test_a_file_in_place_of_the_checkpoint_folder_is_refused(tmp_path, read_only):
    (tmp_path / CHECKPOINTS).write_text("")
    with pytest.raises(UserError, match="checkpoints: Not a directory"):
        Checkpoints(tmp_path, read_only=read_only)


def test_an_item_may_differ_in_its_arrays(tmp_path):
    """A metric was added, one was removed, and one has another shape. All other arrays are the same bits."""
    save(tmp_path, [10])
    kept = like()["sums"]["loss"]
    wanted = like() | {"sums": {"loss": kept, "images": jax.ShapeDtypeStruct((2,), kept.dtype), "new": kept}}
    with Checkpoints(tmp_path) as checkpoints:
        found = checkpoints.restore(wanted, partly=("sums",))
        assert found["sums"] | {"loss": 0} == {"loss": 0, "images": None, "new": None}
        saved = state_at(10)
        assert_is_of_step(found | {"sums": {"loss": found["sums"]["loss"], "images": saved["sums"]["images"]}}, 10)
        with pytest.raises(UserError, match="none of its checkpoints"):
            checkpoints.restore(wanted)
        assert checkpoints.restore(like() | {"metrics": {"loss": kept}}, partly=("metrics", "sums"))["metrics"] == {
            "loss": None
        }


@abandoned_reads
@pytest.mark.parametrize("described", ['"loss"', '"images"'])
def test_a_damaged_name_of_a_metric_is_noticed(tmp_path, caplog, described):
    save(tmp_path, [10, 20])
    path = tmp_path / CHECKPOINTS / "20" / "default" / "_METADATA"
    assert described in path.read_text()
    path.write_text(path.read_text().replace(described, '"lost"'))
    with Checkpoints(tmp_path, keep=10) as checkpoints:
        assert_is_of_step(checkpoints.restore(like(), partly=("sums",)), 10)
    assert any("checkpoint 20 of" in m and "cannot be read" in m for m in caplog.messages)


@pytest.mark.parametrize("appears", [True, False])
def test_a_host_restores_what_the_first_host_sees(tmp_path, monkeypatch, appears):
    """On a network file system, a host may see the newest checkpoint some seconds after the first host."""

    class SecondHost(Hosts):
        first = property(lambda self: False, lambda self, value: None)

        def from_first(self, numbers):
            return [10, 5]

    monkeypatch.setattr("resnet_flax.runs.checkpoints.Hosts", SecondHost)
    monkeypatch.setattr("resnet_flax.runs.checkpoints._SEEN_SECONDS", 5.0 if appears else 0.5)
    save(tmp_path, [5, 10])
    newest, hidden = tmp_path / CHECKPOINTS / "10", tmp_path / "hidden"
    newest.rename(hidden)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.last_saved == 5
        if appears:
            threading.Timer(0.5, hidden.rename, [newest]).start()
        assert_is_of_step(checkpoints.restore(like()), 10 if appears else 5)
        checkpoints.move_unreadable_after(10)
        assert checkpoints.last_saved == 10
