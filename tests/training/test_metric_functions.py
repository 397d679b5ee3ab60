"""Tests per-example metrics against their definitions."""

import jax
import numpy as np
import pytest

from resnet_flax.training import metric_functions
from resnet_flax.training.evaluation import evaluate_log_probabilities


def wrong_by_sorting(scores, labels, k):
    """Counts the images whose class is not among the first k of a stable sort."""
    order = np.argsort(-scores, kind="stable")[:, :k]
    return sum(label not in row for row, label in zip(order, labels, strict=True))


def test_top5_error_agrees_with_a_stable_sort():
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 5, (200, 12)).astype(float), rng.integers(0, 12, 200)  # many scores are equal
    found = evaluate_log_probabilities(scores, labels)
    assert (found.sums["error"], found.sums["top5_error"]) == (
        wrong_by_sorting(scores, labels, 1),
        wrong_by_sorting(scores, labels, 5),
    )
    assert 0 < found.sums["top5_error"] < found.sums["error"] < 200


def test_equal_probabilities_are_ranked_as_by_argmax():
    """A collapsed network with 1,000 classes has 99.9% error and 99.5% top-5 error, not 0%; NaN counts as an error."""
    found = evaluate_log_probabilities(np.zeros((1000, 1000)), np.arange(1000))
    assert (found.sums["error"], found.sums["top5_error"]) == (999, 995)
    assert evaluate_log_probabilities(np.full((3, 6), np.nan), np.zeros(3, int)).sums["top5_error"] == 3


def test_log_probabilities_are_evaluated_without_a_cpu_among_jaxs_platforms(monkeypatch):
    """Regression test: with JAX_PLATFORMS=cuda, evaluate --view=10crop ended in a traceback after the last image."""

    def local_devices(backend=None):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(jax, "local_devices", local_devices)
    assert evaluate_log_probabilities(np.log([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 0])).errors == 1


@pytest.mark.parametrize(("classes", "there"), [(5, False), (6, True)])
def test_top5_error_needs_more_than_five_classes(classes, there):
    assert ("top5_error" in metric_functions.for_classes(classes)) == there
    assert ("top5_error" in evaluate_log_probabilities(np.zeros((2, classes)), np.zeros(2, int)).sums) == there


def test_error_and_loss_are_printed_last():
    *others, last = evaluate_log_probabilities(np.zeros((10, 10)), np.arange(10)).lines("test")
    assert others == ["test top-5 error 50.00% (5 of 10)"]
    assert last.startswith("test error 90.00% (9 of 10), loss ")
