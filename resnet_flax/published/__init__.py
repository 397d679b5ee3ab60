"""Reads and checks tables of published numbers with their sources; each table is a JSON file.

A file has the keys ``title``, ``role`` (``paper`` for the original source, ``peers`` for reproductions by others),
``notes``, ``defaults`` (fields that all rows share) and ``rows``, each a :class:`Number`. Errors are in percent.
"""

import dataclasses
import difflib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resnet_flax import config as configs
from resnet_flax.errors import UserError

FOLDER = Path(__file__).parent

ERRORS = ("test error %", "training error %", "top-1 error %", "top-5 error %")
ROLES = ("paper", "peers")
STATISTICS = ("as printed", "best", "mean", "median", "best epoch")
EVALUATIONS = ("single view", "10-crop")


@dataclasses.dataclass(frozen=True)
class Number:
    """One published number.

    Attributes:
      network: The network, such as ``residual-20`` or ``preactivation-bottleneck-164``.
      data: Name of the data set, as in ``data.name`` of a config.
      metric: One of ERRORS.
      value: The error in percent.
      by: Short name of the authors.
      source: Title of the paper or repository.
      address: ``arXiv:NUMBER`` or an https address of the source.
      where: The table or figure of the source.
      statistic: The statistic over several runs or epochs; ``as printed`` if the source does not specify it.
      runs: Number of runs in the statistic; 0 if the source does not specify it.
      spread: Standard deviation over the runs, in the value's unit; 0 for none.
      variant: Distinguishes networks of the same name.
      config: Config keys and the values that select this variant.
      evaluation: The views of a test image over which predictions are averaged.
      protocol: Further information on the measurement.
      differs: Differences of this project's recipe from the source's.
    """

    network: str
    data: str
    metric: str
    value: float
    by: str
    source: str
    address: str
    where: str
    statistic: str = "as printed"
    runs: int = 0
    spread: float = 0.0
    variant: str = ""
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    evaluation: str = "single view"
    protocol: str = ""
    differs: Sequence[str] = ()

    def __str__(self) -> str:
        """Formats the number, such as ``6.61 ± 0.16 (mean of 5)``."""
        text = f"{self.value:.2f}"
        if self.spread:
            text += f" ± {self.spread:.2f}"
        if self.statistic == "as printed":
            return text
        return f"{text} ({self.statistic}{f' of {self.runs}' if self.runs else ''})"


@dataclasses.dataclass(frozen=True)
class Table:
    """The published numbers of one file.

    Attributes:
      key: The file's name without its suffix.
      title: The table's title.
      role: One of ROLES.
      notes: Remarks that concern the whole table.
      numbers: The rows.
    """

    key: str
    title: str
    role: str
    notes: Sequence[str]
    numbers: Sequence[Number]


def keys() -> list[str]:
    """Returns the keys of all tables."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def read(key: str, folder: Path = FOLDER) -> Table:
    """Reads a table.

    Args:
      key: The file's name without its suffix.
      folder: The folder of the tables.

    Raises:
      UserError: The table does not exist, or its file does not follow the format (:class:`Number`).
    """
    path = folder / f"{key}.json"
    if key not in [known.stem for known in folder.glob("*.json")]:
        near = difflib.get_close_matches(key, keys(), n=1) or keys()
        raise UserError(f"published table {key!r} is not known; did you mean {' or '.join(near)}?")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        numbers = [Number(**{**content["defaults"], **row}) for row in content["rows"]]
        table = Table(key, content["title"], content["role"], content["notes"], numbers)
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{path.name}: not a table of published numbers: {error!r}") from None
    if table.role not in ROLES:
        raise UserError(f"{path.name}: role {table.role!r} is not known; choose one of {', '.join(ROLES)}")
    known = configs.flatten(configs.base())
    seen = set()
    for number in numbers:
        for wrong in _mistakes(number, known):
            raise UserError(f"{path.name}: {number.network}, {number.metric}: {wrong}")
        place = (number.network, number.variant, number.data, number.metric, number.statistic, number.by)
        if place in seen:
            raise UserError(f"{path.name}: {number.network}, {number.metric}: two rows give this number; keep one")
        seen.add(place)
    return table


def read_all() -> list[Table]:
    """Reads all tables."""
    return [read(key) for key in keys()]


def _mistakes(n: Number, known: Mapping[str, Any]) -> list[str]:
    """Returns the messages of a row's mistakes."""
    checks = {
        f"network {n.network!r} is not UNIT-DEPTH or UNIT-BLOCK-DEPTH": re.fullmatch(
            r"[a-z]+(-(basic|bottleneck))?-\d+", n.network
        ),
        f"metric is not one of {', '.join(ERRORS)}": n.metric in ERRORS,
        f"statistic {n.statistic!r} is not one of {', '.join(STATISTICS)}": n.statistic in STATISTICS,
        f"evaluation {n.evaluation!r} is not one of {', '.join(EVALUATIONS)}": n.evaluation in EVALUATIONS,
        f"value {n.value!r} is not an error in percent": _is_number(n.value) and 0 < n.value < 100,
        f"spread {n.spread!r} is not a standard deviation": _is_number(n.spread) and n.spread >= 0,
        f"runs {n.runs!r} is not a number of runs": type(n.runs) is int and n.runs >= 0,
        f"address {n.address!r} is neither arXiv:NUMBER nor https": re.fullmatch(
            r"arXiv:\d{4}\.\d{4,5}|https://\S+", n.address
        ),
        "by, source, where and data must not be empty": n.by and n.source and n.where and n.data,
        f"config names keys that no config has: {', '.join(n.config)}": set(n.config) <= set(known),
        "variant and config must be given together": bool(n.variant) == bool(n.config),
    }
    return [message for message, fits in checks.items() if not fits]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
