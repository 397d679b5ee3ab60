"""Sweeps over depth: the sweep of experiments/sweep.py with depth on the horizontal axis and a default grid.

python -m experiments.depth_sweep --workdir=runs/depth --grid model.depth=8..56:6 --grid model.unit=plain,residual

The default grid is plain and residual networks of depths 8, 20, 32 and 56 with seeds 0 and 1. The figure has a line for
each combination of the other keys. --best-over=optimizer.learning_rate trains each network at its own best learning
rate (experiments/sweep.py).
"""

from resnet_flax.sweeps import grid_sweep

EXPERIMENT = grid_sweep.experiment(
    axes=("model.depth=8,20,32,56", "model.unit=plain,residual"),
    x="model.depth",
    title="Error against depth",
    question="How do the errors change over the grid {grid}? (arXiv:1512.03385, section 4.2)",
    published=("cifar10_table6",),
    seeds=(0, 1),
)

if __name__ == "__main__":
    EXPERIMENT.run()
