"""Why plain networks fail: gradients and responses layer by layer, at initialisation and after training.

python -m experiments.propagation --workdir=runs/propagation [--units=plain,residual] [--depths=20,56] [--trained=False]

For every unit, depth, with and without batch normalisation, and for each initialisation: the norm of the loss's
gradient with respect to each layer's weights and each 3x3 layer's response, and the standard deviation of those
responses (arXiv:1512.03385, Fig. 7). After training, too, for the config's own initialisation and a --fraction of its
schedule. The notes print the review's claim (gradients vanish), the paper's (section 4.1: with BN they do not) and what
was measured, side by side; no direction is assumed. layers.csv holds every number.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from absl import flags

from experiments import options
from experiments.propagation_measured import Measured
from resnet_flax import command

_UNITS = flags.DEFINE_list("units", ["plain", "residual", "highway", "preactivation"], "Units of the networks.")
_DEPTHS = flags.DEFINE_list("depths", ["20", "56"], "Depths of the networks.")
_NORMS = flags.DEFINE_list("norms", ["batch", "none"], "Values of model.norm.")
_INITIALIZATIONS = flags.DEFINE_list("initializations", ["he", "lecun"], "Values of model.initialization.")
_TRAINED = flags.DEFINE_bool("trained", True, "Also train the networks, and measure again.")
_FRACTION = flags.DEFINE_float(
    "fraction", 0.5, "Part of the config's steps and milestones to train for.", lower_bound=0, upper_bound=1
)
_IMAGES = flags.DEFINE_integer("images", 128, "Training images to measure on.", lower_bound=2)


def main() -> None:
    """Trains what is missing, measures, and writes figures, tables and notes."""
    from experiments import propagation_figures, sweep, tables
    from experiments.record import Record
    from experiments.runs import Case, plan, shortened

    cases = [
        Case(f"{unit}-{depth}", {"model.norm": norm}, f"{unit}-{depth}{'' if norm == 'batch' else ' without BN'}")
        for norm in _NORMS.value
        for depth in options.whole_numbers(_DEPTHS)
        for unit in _UNITS.value
    ]
    starts = [
        dataclasses.replace(case, overrides={**case.overrides, "model.initialization": how})
        for how in _INITIALIZATIONS.value
        for case in cases
    ]
    untrained = plan(starts, options.whole_numbers(options.SEEDS)[:1])
    trained = [shortened(case, _FRACTION.value) for case in cases]
    outcomes = sweep.run(trained) if _TRAINED.value or options.DRY_RUN.value else []
    if outcomes is None:
        return
    measured = _measure(untrained, outcomes)

    folder, data = options.workdir(), untrained[0].config.data.name
    tables.write_rows(folder / "layers.csv", *_layer_rows(measured))
    caption = (
        "Gradient norms at the first layer over those at the last, and standard deviations of responses: seed of the "
        "first run, one batch of training images"
    )
    summary = tables.write_rows(folder / "summary.csv", *_summary_rows(measured), caption)
    record = Record(
        experiment="propagation",
        title="How signals and gradients travel",
        question="Do gradients vanish in deep plain networks? How large are the responses of layers? "
        "(arXiv:1512.03385, section 4.1 and Fig. 7)",
        notes=[*_notes(measured), *_protocol(outcomes)],
    )
    figures = propagation_figures.draw(measured, folder, data)
    sweep.finish(outcomes, record, figures, [summary])


def _measure(untrained: Sequence[Any], outcomes: Sequence[Any]) -> list[Measured]:
    from experiments.propagation_measured import after_training, at_initialization
    from resnet_flax.runtime.progress import Progress

    images = _IMAGES.value
    first = untrained[0].config.seed
    trained = [o for o in outcomes if o.run.config.seed == first]
    found = []
    with Progress(len(untrained) + len(trained), "measuring propagation", "networks") as progress:
        for run in untrained:
            found.append(Measured(run.config, "at initialisation", at_initialization(run.config, images)))
            progress.update(1)
        for outcome in trained:
            seen = None if outcome.failure else after_training(outcome.run, images)
            found.append(Measured(outcome.run.config, "after training", seen, outcome.failure))
            progress.update(1)
    return found


def _key(m: Measured) -> tuple[str, ...]:
    from resnet_flax import config as configs

    return (configs.name_of(m.config.model), m.norm, m.config.model.initialization, m.when)


_KEY_HEADER = ("network", "normalisation", "initialisation", "when")


def _layer_rows(measured: Sequence[Measured]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    rows = []
    for m in measured:
        if m.propagation is not None:
            for kind in ("weights", "activations", "responses"):
                rows += [(*_key(m), kind, name, f"{v:.6g}") for name, v in getattr(m.propagation, kind)]
    return (*_KEY_HEADER, "quantity", "layer", "value"), rows


def _summary_rows(measured: Sequence[Measured]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    header = (
        *_KEY_HEADER, "loss", "weight gradient, first/last", "activation gradient, first/last",
        "response deviation, mean", "response deviation, largest",
    )  # fmt: skip
    rows = []
    for m in measured:
        if m.propagation is None:
            rows.append((*_key(m), *[m.failure] * 5))
            continue
        p, deviations = m.propagation, [v for _, v in m.propagation.responses]
        numbers = (p.loss, _ratio(p.weights), _ratio(p.activations), sum(deviations) / len(deviations), max(deviations))
        rows.append((*_key(m), *(f"{n:.3g}" for n in numbers)))
    return header, rows


def _ratio(layers: Sequence[tuple[str, float]]) -> float:
    """The first 3x3 layer over the last: above 1, gradients grow on their way back; below, they shrink."""
    inner = [value for name, value in layers if not name.startswith(("dense", "hidden"))]
    return inner[0] / inner[-1] if inner[-1] else float("inf")


def _protocol(outcomes: Sequence[Any]) -> list[str]:
    if not outcomes:
        return []
    steps = outcomes[0].run.config.train.steps
    return [f"Trained for {steps} steps, {_FRACTION.value:g} of the config's schedule."]


def _notes(measured: Sequence[Measured]) -> list[str]:
    """The two claims, and beside them the ratios that were measured."""
    from resnet_flax import config as configs

    notes = [
        "The review's claim: gradients vanish in deep plain networks on their way back to the first layers.",
        "The paper's (section 4.1): with BN the forward signals have non-zero variances and the backward gradients "
        "healthy norms, so vanishing is unlikely to be the cause of degradation.",
    ]
    groups: dict[tuple[str, str, str], list[Measured]] = {}
    for m in measured:
        groups.setdefault((m.norm, m.config.model.initialization, m.when), []).append(m)
    for (norm, how, when), members in groups.items():
        said = []
        for m in members:
            name = configs.name_of(m.config.model)
            if m.propagation is None:
                said.append(f"{name} {m.failure}")
            else:
                ratio = _ratio(m.propagation.activations)
                word = "grow" if ratio > 2 else "shrink" if ratio < 0.5 else "hardly change"
                said.append(f"{name} ×{ratio:.2g} ({word})")
        notes.append(
            f"Measured, {norm}, {how} initialisation, {when}: the activation gradient's norm at the first 3x3 layer "
            f"over that at the last: {'; '.join(said)}."
        )
    return notes


if __name__ == "__main__":
    command.run(main, uses_devices=True)
