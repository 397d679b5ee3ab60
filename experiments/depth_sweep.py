"""Any grid over config keys, and the error against depth with error bars over seeds.

python -m experiments.depth_sweep --workdir=runs/depth --grid model.depth=8,20,56 --grid model.unit=plain,residual

Every --grid names a config key and its values; all combinations are run, with every seed. The rest of the network is
that of --config=FILE:NAME. By default depths 8, 20, 32 and 56 of plain and residual networks with seeds 0 and 1. Lines
of the figure are the combinations of whatever varies beside depth.
"""

from resnet_flax import config as configs
from resnet_flax.figures import curves, final_errors
from resnet_flax.sweeps import grid
from resnet_flax.sweeps.cases import Asked, Case, Outcome
from resnet_flax.sweeps.experiment import Experiment, Findings, Results, Setting


def cases(asked: Asked) -> list[Case]:
    """All combinations."""
    return grid.cases(asked.settings.grid, asked)


def findings(results: Results) -> Findings:
    """The final errors against depth, and the curves."""
    keys = grid.keys_of(map(grid.parse, results.asked.settings.grid))
    others = [key for key in keys if key not in ("model.depth", "model.unit")]

    def line(outcome: Outcome) -> str:
        flat = configs.flatten(outcome.run.config)
        unit = configs.name_of(outcome.run.config.model).partition("-")[0]
        return " ".join([unit, *(f"{key.rpartition('.')[2]}={flat[key]}" for key in others)])

    data, folder = results.data, results.folder
    return Findings([
        final_errors.against_depth(results.outcomes, folder / "depth.png", f"{data}: error against depth", line),
        curves.draw(results.outcomes, folder / "curves.png", f"{data}: the runs behind it", panel=line),
    ])  # fmt: skip


EXPERIMENT = Experiment(
    title="Error against depth",
    question="How do the errors change over the grid {grid}? (arXiv:1512.03385, section 4.2)",
    settings={
        "grid": Setting(
            ("model.depth=8,20,32,56", "model.unit=plain,residual"), "KEY=VALUE,VALUE,... of the config.", repeated=True
        ),
    },
    cases=cases,
    findings=findings,
    published=("cifar10_table6", "cifar10_plain"),
    seeds=(0, 1),
)

if __name__ == "__main__":
    EXPERIMENT.run()
