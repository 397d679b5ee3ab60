"""The experiments that come with the project."""

# In the order in which they are run and reported: those that tell one story follow each other.
ORDER = (
    "cifar10", "plain_vs_residual", "depth_sweep", "highway", "propagation", "layer_norms", "claims", "shortcuts",
    "initialisation", "cost", "sweep",
)  # fmt: skip

# What ``experiments.all`` runs: cifar10 takes days on the paper's schedule, layer_norms measures runs of its own, and a
# sweep asks what its grid says.
ALL = tuple(name for name in ORDER if name not in ("cifar10", "layer_norms", "sweep"))
