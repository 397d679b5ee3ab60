"""Options A, B and C for the shortcuts, beside no shortcut at all (arXiv:1512.03385, Table 3).

python -m experiments.shortcuts --workdir=runs/shortcuts [--depths=20] [--seeds=0,1]
"""

from absl import flags

from resnet_flax import command
from resnet_flax.sweeps import options

_DEPTHS = flags.DEFINE_list("depths", ["20", "32"], "Depths of the networks.")


def main() -> None:
    """Runs the three options and the plain twin at each depth."""
    from resnet_flax.figures import curves
    from resnet_flax.figures import final_errors as error_bars
    from resnet_flax.reporting.record import Record
    from resnet_flax.sweeps import sweep
    from resnet_flax.sweeps.runs import Case

    cases = []
    for depth in options.whole_numbers(_DEPTHS):
        cases.append(Case(f"plain-{depth}"))
        for option in "ABC":
            cases.append(Case(f"residual-{depth}", {"model.shortcut": option}, f"residual-{depth} {option}"))
    outcomes = sweep.run(cases)
    if outcomes is None:
        return

    def which(outcome: "Outcome") -> str:  # noqa: F821 (imported where it is used)
        model = outcome.run.config.model
        return "plain" if model.unit == "plain" else f"option {model.shortcut}"

    data, folder = outcomes[0].run.config.data.name, options.workdir()
    figures = [
        error_bars.side_by_side(outcomes, folder / "errors.png", f"{data}: shortcuts A, B and C"),
        curves.draw(outcomes, folder / "curves.png", f"{data}: shortcuts A, B and C", panel=which),
    ]
    record = Record(
        experiment="shortcuts",
        title="Identity against projection shortcuts",
        question="Does a projection (option B where the shape changes, C everywhere) do better than the identity with "
        "zero channels (A), and how much of what shortcuts bring is theirs? (arXiv:1512.03385, Table 3)",
        published=("imagenet",),
    )
    sweep.finish(outcomes, record, figures)


if __name__ == "__main__":
    command.run(main, uses_devices=True)
