"""Tables and notes on the openness of gates, which ``measurements/gates.py`` measures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from resnet_flax.reporting import tables
from resnet_flax.reporting.record import Table

_Openness = Mapping[str, Mapping[str, Sequence[tuple[str, float]]]]


def write(gates: _Openness, folder: Path) -> Table:
    """Writes gates.csv with a row for each network and moment, and gate_layers.csv with a row for each layer.

    Returns:
      The entry of gates.csv in the record.
    """
    rows, layers = [], []
    for label, moments in gates.items():
        for when, members in moments.items():
            values = [v for _, v in members]
            numbers = (sum(values) / len(values), min(values), max(values))
            rows.append((label, when, str(len(values)), *(f"{n:.3f}" for n in numbers)))
            layers += [(label, when, name, f"{value:.6g}") for name, value in members]
    tables.write_rows(folder / "gate_layers.csv", ("network", "when", "layer", "mean T"), layers)
    header = ("network", "when", "gates", "mean T", "least", "most")
    return tables.write_rows(folder / "gates.csv", header, rows, "Openness of the gates: the mean of T in each network")


def notes(gates: _Openness) -> list[str]:
    """Returns a sentence about each network."""
    found = []
    for label, moments in gates.items():
        before, after = (sum(v for _, v in m) / len(m) for m in moments.values())
        found.append(f"{label}: mean openness of the gates {before:.3f} at initialisation, {after:.3f} after training.")
    return found
