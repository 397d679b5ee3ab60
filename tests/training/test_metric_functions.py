"""Metrics of examples against their definitions."""

import numpy as np
import pytest

from resnet_flax.training import metric_functions
from resnet_flax.training.evaluation import of_log_probabilities


def by_hand(scores, labels, k):
    """Images whose class is none of the first k by a stable sort."""
    order = np.argsort(-scores, kind="stable")[:, :k]
    return sum(label not in row for row, label in zip(order, labels, strict=True))


def test_top5_error_is_that_of_a_stable_sort():
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 5, (200, 12)).astype(float), rng.integers(0, 12, 200)  # with many equal ones
    found = of_log_probabilities(scores, labels)
    assert (found.sums["error"], found.sums["top5_error"]) == (by_hand(scores, labels, 1), by_hand(scores, labels, 5))
    assert 0 < found.sums["top5_error"] < found.sums["error"] < 200


def test_equal_probabilities_are_in_the_order_of_argmax():
    """A collapsed network of 1,000 classes: 99.9% and 99.5%, not 99.9% beside 0%; NaN is wrong."""
    found = of_log_probabilities(np.zeros((1000, 1000)), np.arange(1000))
    assert (found.sums["error"], found.sums["top5_error"]) == (999, 995)
    assert of_log_probabilities(np.full((3, 6), np.nan), np.zeros(3, int)).sums["top5_error"] == 3


@pytest.mark.parametrize(("classes", "there"), [(5, False), (6, True)])
def test_top5_error_is_for_more_than_five_classes(classes, there):
    assert ("top5_error" in metric_functions.for_classes(classes)) == there
    assert ("top5_error" in of_log_probabilities(np.zeros((2, classes)), np.zeros(2, int)).sums) == there


def test_in_words_the_usual_line_is_the_last():
    *others, last = of_log_probabilities(np.zeros((10, 10)), np.arange(10)).lines("test")
    assert others == ["test top-5 error 50.00% (5 of 10)"]
    assert last.startswith("test error 90.00% (9 of 10), loss ")
