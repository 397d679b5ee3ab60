"""The propagation experiment: its notes and figures, and files of weights, which are measured as their runs."""

from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from resnet_flax import model
from resnet_flax.analysis import propagation as analysis
from resnet_flax.data import datasets
from resnet_flax.figures import propagation as pictures
from resnet_flax.interchange import files
from resnet_flax.measurements import propagation
from resnet_flax.reporting.propagation import Measured, notes, write
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.sweeps.cases import PlannedRun
from tests.commands import command
from tests.experiments.folders import config
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


def measured(values, how="he", when="after training", failure=""):
    """Returns measurements of a network whose three quantities have these values in the layers a, b and so on."""
    layers = list(zip("abcdefg", values, strict=False))
    found = SimpleNamespace(loss=2.3, weights=layers, activations=layers, responses=layers)
    norm = "none" if failure or not any(values) else "batch"
    of = config("plain-56", model__initialization=how, model__norm=norm)
    return Measured(of, when, None if failure else found, failure)


def test_a_network_without_any_gradient_is_said_to_have_none(tmp_path):
    """0 / 0 is no ratio. A gradient that vanishes only at the end has an infinite one."""
    found = [measured([0, 0, 0]), measured([1, 2, 0]), measured([4, 2, 1])]
    [dead] = [note for note in notes(found) if "without BN" in note]
    assert dead.endswith("after training: plain-56 no gradient in any layer.")
    assert any("plain-56 ×inf (grow); plain-56 ×4 (grow)" in note for note in notes(found))
    write(found, tmp_path)
    assert [row["activation gradient, first/last"] for row in rows(tmp_path / "summary.csv")] == ["all 0", "inf", "4"]


def test_figures_of_diverged_and_dead_networks_and_of_other_initialisations_are_drawn(tmp_path):
    """A panel may have no positive value. Responses are drawn for each moment, whatever its first initialisation is."""
    start = [measured([1, 2], how, "at initialisation") for how in ("lecun", "he")]
    found = [*start, measured([1, 2]), measured([0, 0]), measured([], failure="diverged")]
    assert [figure.file for figure in pictures.draw(found, tmp_path, "digits")] == [
        "gradients-at-initialisation-lecun.png", "responses-at-initialisation.png",
        "gradients-at-initialisation-he.png",
        "gradients-after-training-he.png", "responses-after-training.png",
    ]  # fmt: skip


def test_a_file_is_measured_with_the_normalisation_of_its_training(begun_before):
    """A subset of the images has another mean image than the one that was subtracted in training."""
    run = model.from_run(begun_before / "finished")
    data = run.config.data
    mean = datasets.load(data).train.images.mean(0) / 255
    part = datasets.load({**data, "subset": 50}).train
    images, labels = np.float32(part.images[:8] / 255 - mean), part.labels[:8]
    expected = analysis.measure(run.network, run.variables, images, labels)
    file = files.read(begun_before / "finished.safetensors")
    found = propagation.of_weights(file, {"data.subset": 50}, 8).propagation
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    assert found.responses == [(name, pytest.approx(value, rel=1e-4)) for name, value in expected.responses]
