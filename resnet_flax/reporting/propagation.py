"""Tables and notes on gradients and responses layer by layer, which ``measurements/propagation.py`` measures."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resnet_flax import config as configs
from resnet_flax.reporting import tables
from resnet_flax.reporting.record import Table


@dataclasses.dataclass(frozen=True)
class Measured:
    """The measurements of one network at one moment.

    Attributes:
      config: The config of the run.
      when: The moment: ``at initialisation`` or ``after training``.
      propagation: The measurements, or None if the run failed.
      failure: How the run failed, or empty.
    """

    config: Any
    when: str
    propagation: Any
    failure: str = ""

    @property
    def norm(self) -> str:
        """The normalisation as figures name it: ``with BN`` or ``without BN``."""
        return "with BN" if self.config.model.norm == "batch" else "without BN"

    @property
    def name(self) -> tuple[str, str, str]:
        """The network's name, its normalisation and its initialisation."""
        return configs.name_of(self.config.model), self.norm, self.config.model.initialization


def write(measured: Sequence[Measured], folder: Path) -> Table:
    """Writes summary.csv with a row for each network and moment, and layers.csv with a row for each layer.

    Returns:
      The entry of summary.csv in the record.
    """
    tables.write_rows(folder / "layers.csv", *_layer_rows(measured))
    caption = (
        "Ratios of gradient norms at the first layer to those at the last, and standard deviations of responses, for "
        "one seed on one batch of training images"
    )
    return tables.write_rows(folder / "summary.csv", *_summary_rows(measured), caption)


def _key(m: Measured) -> tuple[str, ...]:
    return (*m.name, m.when)


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
        rows.append((*_key(m), *("all 0" if math.isnan(n) else f"{n:.3g}" for n in numbers)))
    return header, rows


def _ratio(layers: Sequence[tuple[str, float]]) -> float:
    """Returns the ratio of the first 3x3 layer to the last; NaN if the gradient is 0 in every layer.

    Above 1, gradients grow on their way back to the input.
    """
    inner = [value for name, value in layers if not name.startswith(("dense", "hidden"))]
    if not any(inner):
        return math.nan
    return inner[0] / inner[-1] if inner[-1] else math.inf


def notes(measured: Sequence[Measured]) -> list[str]:
    """Returns the claim that gradients vanish, the paper's claim, and the measured ratios."""
    found = [
        "Claim: gradients vanish in deep plain networks on their way back to the first layers.",
        "The paper's claim (section 4.1): with BN the forward signals have non-zero variances and the backward "
        "gradients healthy norms, so vanishing is unlikely to be the cause of degradation.",
    ]
    groups: dict[tuple[str, str, str], list[Measured]] = {}
    for m in measured:
        groups.setdefault((m.norm, m.config.model.initialization, m.when), []).append(m)
    for (norm, how, when), members in groups.items():
        parts = []
        for m in members:
            name = configs.name_of(m.config.model)
            if m.propagation is None:
                parts.append(f"{name} {m.failure}")
            elif math.isnan(ratio := _ratio(m.propagation.activations)):
                parts.append(f"{name} no gradient in any layer")
            else:
                word = "grow" if ratio > 2 else "shrink" if ratio < 0.5 else "hardly change"
                parts.append(f"{name} ×{ratio:.2g} ({word})")
        found.append(
            f"Measured ratio of the activation gradient's norm at the first 3x3 layer to that at the last, {norm}, "
            f"{how} initialisation, {when}: {'; '.join(parts)}."
        )
    return found
