"""He initialisation against others, and the last BN scale of a unit at zero or one.

python -m experiments.initialisation --workdir=runs/initialisation [--depths=20] [--seeds=0,1]

The paper uses He's (arXiv:1502.01852); zero-initialised last scales are a habit of later years, and not the paper's.
These are compared with option B shortcuts: with option A, the channels that a stage adds would be 0 at the start and,
behind a ReLU, for ever.
"""

from absl import flags

from resnet_flax import command
from resnet_flax.sweeps import options

_DEPTHS = flags.DEFINE_list("depths", ["20"], "Depths of the networks.")
_INITIALIZATIONS = flags.DEFINE_list(
    "initializations", ["he", "he_fan_out", "lecun", "glorot", "orthogonal"], "Values of model.initialization."
)


def main() -> None:
    """Runs plain and residual networks with each initialisation, and residual ones with the last scale at zero."""
    from resnet_flax.figures import curves
    from resnet_flax.figures import final_errors as error_bars
    from resnet_flax.reporting.record import Record
    from resnet_flax.sweeps import sweep
    from resnet_flax.sweeps.runs import Case

    cases = []
    for depth in options.whole_numbers(_DEPTHS):
        for unit in ("plain", "residual"):
            for how in _INITIALIZATIONS.value:
                cases.append(Case(f"{unit}-{depth}", {"model.initialization": how}, f"{unit}-{depth} {how}"))
        for how, zero in (("he", False), ("he", True), ("lecun", True)):
            overrides = {"model.initialization": how, "model.zero_init_last": zero, "model.shortcut": "B"}
            label = f"residual-{depth} B {how}" + (", last scale 0" if zero else "")
            cases.append(Case(f"residual-{depth}", overrides, label))
    outcomes = sweep.run(cases)
    if outcomes is None:
        return

    def how(outcome: "Outcome") -> str:  # noqa: F821 (imported where it is used)
        model = outcome.run.config.model
        option = "B " if model.unit == "residual" and model.shortcut == "B" else ""
        return option + model.initialization + (", last scale 0" if model.zero_init_last else "")

    data, folder = outcomes[0].run.config.data.name, options.workdir()
    figures = [
        error_bars.side_by_side(outcomes, folder / "errors.png", f"{data}: initialisation"),
        curves.draw(outcomes, folder / "curves.png", f"{data}: initialisation", line=how),
    ]
    record = Record(
        experiment="initialisation",
        title="Initialisation",
        question="How much hangs on He's initialisation with BN, and on the last scale of a unit, in plain and "
        "residual networks? (arXiv:1502.01852; arXiv:1512.03385, section 3.4)",
    )
    sweep.finish(outcomes, record, figures)


if __name__ == "__main__":
    command.run(main, uses_devices=True)
