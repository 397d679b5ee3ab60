"""Tables and sentences of how signals and gradients travel; ``measurements/propagation.py`` measures them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resnet_flax import config as configs
from resnet_flax.reporting import tables
from resnet_flax.reporting.record import Table


@dataclasses.dataclass(frozen=True)
class Measured:
    """A network at a moment, and what was measured in it (None where it could not be trained)."""

    config: Any
    when: str
    propagation: Any
    failure: str = ""

    @property
    def norm(self) -> str:
        """As figures call it."""
        return "with BN" if self.config.model.norm == "batch" else "without BN"


def write(measured: Sequence[Measured], folder: Path) -> Table:
    """Writes summary.csv, a row a network and moment, which is returned, and layers.csv, a row a layer."""
    tables.write_rows(folder / "layers.csv", *_layer_rows(measured))
    caption = (
        "Gradient norms at the first layer over those at the last, and standard deviations of responses: seed of the "
        "first run, one batch of training images"
    )
    return tables.write_rows(folder / "summary.csv", *_summary_rows(measured), caption)


def _key(m: Measured) -> tuple[str, ...]:
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


def notes(measured: Sequence[Measured]) -> list[str]:
    """The two claims, and beside them the ratios that were measured."""
    found = [
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
        found.append(
            f"Measured, {norm}, {how} initialisation, {when}: the activation gradient's norm at the first 3x3 layer "
            f"over that at the last: {'; '.join(said)}."
        )
    return found
