"""The propagation experiment on files of weights: a file is measured as the run that it comes from."""

import pytest
from safetensors.numpy import load_file, save_file

from resnet_flax.measurements import propagation
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.sweeps.cases import PlannedRun
from tests.commands import command
from tests.experiments.test_experiments import rows


def measure(folder, *arguments):
    return command("-m", "experiments.propagation", f"--workdir={folder}", "--trained=False", "--images=8", *arguments)


def test_a_file_is_measured_as_the_run_it_comes_from(begun_before, tmp_path):
    """One network is measured at initialisation, and the network in the file after training."""
    given = ("--units=residual", "--depths=8", "--norms=batch", "--initializations=he")
    code, output = measure(tmp_path, *given, f"--weights={begun_before / 'finished.safetensors'}")
    assert code == 0, output
    workdir = begun_before / "finished"
    expected = propagation.after_training(PlannedRun(RunDirectory(workdir).existing_config(), workdir, "run"), 8)
    layers = rows(tmp_path / "layers.csv")
    assert [row["network"] for row in layers if row["quantity"] == "activations"][:1] == ["residual-8"]
    for quantity in ("weights", "activations", "responses"):
        found = [r for r in layers if (r["when"], r["quantity"]) == ("after training", quantity)]
        assert [r["layer"] for r in found] == [name for name, _ in getattr(expected, quantity)]
        values = [value for _, value in getattr(expected, quantity)]
        assert [float(r["value"]) for r in found] == pytest.approx(values, rel=1e-4)
    assert {row["when"] for row in layers} == {"at initialisation", "after training"}


def test_files_that_cannot_be_measured_are_refused_before_the_first_run(begun_before, tmp_path):
    """A file of another program, one of other data than the config, a missing one, and nothing to measure."""
    file, foreign = begun_before / "finished.safetensors", tmp_path / "foreign.safetensors"
    save_file(load_file(file), foreign)  # without the config that the export put in
    for arguments, expected in {
        (f"--weights={foreign}",): "the file names neither its network nor its training images",
        (f"--weights={file}x",): f"--weights={file}x: there is no such file",
        ("--config=configs/cifar10.py", f"--weights={file}"): "of different data sets: cifar10, digits",
        ("--units=",): "--units, --depths, --norms or --initializations is empty",
        ("--units=", f"--weights={file},{file}"): "residual-8 with BN he would be measured twice after training",
        ("--trained", f"--weights={file}", "--units=residual", "--depths=8"): "measured twice after training",
    }.items():
        code, output = measure(tmp_path / "x", *arguments)
        assert (code, expected in output) == (2, True), output
    assert not (tmp_path / "x").exists()
