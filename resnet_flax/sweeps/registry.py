"""The experiments that come with the project."""

# In the order in which they are run and reported: those that tell one story follow each other.
ORDER = (
    "cifar10", "plain_vs_residual", "depth_sweep", "highway", "propagation", "layer_norms", "claims", "shortcuts",
    "initialisation", "cost",
)  # fmt: skip

# What ``experiments.all`` runs: on the paper's own networks and schedule, cifar10 takes days.
ALL = tuple(name for name in ORDER if name != "cifar10")
