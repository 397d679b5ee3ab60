"""The optimizer and the schedule of a run, their numbers apart from their structure."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from resnet_flax.training import optimizer as optimizers
from resnet_flax.training.schedule import learning_rate

Numbers = Mapping[str, Any]  # keys of a config, such as optimizer.momentum -> an array


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a config has parameters updated.

    The compiled step takes the numbers as an argument, so runs that differ in nothing else share it. Structure stays in
    the program: names, booleans, the number of milestones, whether there is a warm-up or an average. No number is
    part of the optimizer's state.

    Attributes:
      config: resolved.
    """

    config: ConfigDict

    @property
    def numbers(self) -> Numbers:
        """The rates, decays and other real numbers in the precision of the parameters; steps as int32."""
        dtype, found = jnp.dtype(self.config.model.param_dtype), {}
        for section in ("optimizer", "schedule"):
            for key, value in self.config[section].items():
                if isinstance(value, float):
                    found[f"{section}.{key}"] = np.asarray(value, dtype)
                elif section == "schedule" and value and not isinstance(value, str | bool):
                    # A run's last step is below that.
                    found[f"{section}.{key}"] = np.minimum(value, np.iinfo(np.int32).max).astype(np.int32)
        return found

    def rate(self, numbers: Numbers | None = None) -> optax.Schedule:
        """The learning rate as a function of the step; with those numbers in place of the config's."""
        return learning_rate(self._section("optimizer", numbers), self._section("schedule", numbers))

    def optimizer(self, numbers: Numbers | None = None) -> optax.GradientTransformation:
        """The transformation of gradients into updates; with those numbers in place of the config's."""
        return optimizers.build(self._section("optimizer", numbers), self.rate(numbers))

    def _section(self, section: str, numbers: Numbers | None) -> dict[str, Any]:
        return {key: (numbers or {}).get(f"{section}.{key}", value) for key, value in self.config[section].items()}
