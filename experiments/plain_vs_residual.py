"""Plain against residual networks of several depths: the degradation problem, and its cure (Figs. 1 and 6).

python -m experiments.plain_vs_residual --config=configs/digits.py --depths=20,56 --seeds=0 --workdir=runs/curves

Writes curves.png, table.md and table.csv into the folder, beside a folder for each run. Finished runs are skipped,
interrupted ones go on; --dry-run prints them. Overrides such as --config.train.steps=2000 hold for every run.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from resnet_flax import command
from resnet_flax.errors import Diverged, UserError

_CONFIG = config_flags.DEFINE_config_file(
    "config", "configs/digits.py", "Config file; depths and units come from here."
)
_DEPTHS = flags.DEFINE_list("depths", ["20", "56"], "Depths of the networks.")
_UNITS = flags.DEFINE_list("units", ["plain", "residual"], "Units of the networks.")
_SEEDS = flags.DEFINE_list("seeds", ["0"], "Seeds; the figure shows their mean and standard deviation.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the figure, the table and the runs.")
_DRY_RUN = flags.DEFINE_bool("dry-run", False, "Print the runs and stop.")
flags.mark_flag_as_required("workdir")


def main() -> None:
    """Runs what is missing, then writes the figure and the table."""
    from experiments import runs

    workdir = Path(_WORKDIR.value)
    planned = [
        runs.Run(runs.config_for(_CONFIG, f"{unit}-{depth}", seed), workdir / f"{unit}-{depth}-seed{seed}")
        for seed in _whole_numbers(_SEEDS)
        for depth in _whole_numbers(_DEPTHS)
        for unit in _UNITS.value
    ]
    if _DRY_RUN.value:
        runs.print_plan(planned)
        return
    outcomes = runs.execute(planned)

    from experiments import curves, tables

    data = planned[0].config.data.name
    curves.draw(outcomes, workdir / "curves.png", f"{data}: plain and residual networks")
    tables.write(outcomes, workdir)
    print(tables.markdown(outcomes) + f"\nfigure: {workdir / 'curves.png'}")
    diverged = [o.run.name for o in outcomes if o.diverged]
    if diverged:
        raise Diverged(f"{len(diverged)} of {len(outcomes)} runs diverged: {', '.join(diverged)}")


def _whole_numbers(flag: flags.FlagHolder) -> list[int]:
    try:
        return [int(text) for text in flag.value]
    except ValueError:
        raise UserError(f"--{flag.name}={','.join(flag.value)} must be whole numbers with commas between") from None


if __name__ == "__main__":
    command.run(main, uses_devices=True)
