"""The error against depth, over any grid of config keys: the sweep of experiments/sweep.py with depth as its x.

python -m experiments.depth_sweep --workdir=runs/depth --grid model.depth=8..56:6 --grid model.unit=plain,residual

By default depths 8, 20, 32 and 56 of plain and residual networks with seeds 0 and 1; a line for each combination of
whatever varies beside depth. Each depth at its own best learning rate: --best-over=optimizer.learning_rate, as
experiments/sweep.py says.
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
