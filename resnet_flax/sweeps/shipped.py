"""The experiments that come with the project."""

# The order in which experiments are run and reported.
ORDER = (
    "cifar10", "plain_vs_residual", "depth_sweep", "highway", "propagation", "layer_norms", "claims", "shortcuts",
    "initialisation", "cost", "sweep",
)  # fmt: skip

# The experiments of ``experiments.all``. Left out are cifar10, which takes days on the paper's schedule, layer_norms,
# which shares no runs with the others, and sweep, which needs a grid.
ALL = tuple(name for name in ORDER if name not in ("cifar10", "layer_norms", "sweep"))
