"""The optimizer and schedule of a run, with their numbers separated from their structure."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from resnet_flax.training import optimizer as optimizers
from resnet_flax.training.schedule import learning_rate

Numbers = Mapping[str, Any]  # config key, such as optimizer.momentum -> scalar or vector array


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The update rule of a config.

    The compiled step takes the numbers as arguments, so runs that differ only in numbers share one compiled step. The
    structure is part of the program: names, booleans, the number of milestones, and whether there is a warm-up or a
    moving average. No number is part of the optimizer's state.

    Attributes:
      config: A resolved config.
    """

    config: ConfigDict

    @property
    def numbers(self) -> Numbers:
        """The rates, decays and other real numbers in the parameters' dtype, and numbers of steps as int32."""
        dtype, found = jnp.dtype(self.config.model.param_dtype), {}
        for section in ("optimizer", "schedule"):
            for key, value in self.config[section].items():
                if isinstance(value, float):
                    found[f"{section}.{key}"] = np.asarray(value, dtype)
                elif section == "schedule" and value and not isinstance(value, str | bool):
                    # Steps are int32, so a larger number is never reached.
                    found[f"{section}.{key}"] = np.minimum(value, np.iinfo(np.int32).max).astype(np.int32)
        return found

    def rate(self, numbers: Numbers | None = None) -> optax.Schedule:
        """Builds the learning-rate schedule, from the given numbers or else from the config's."""
        return learning_rate(self._section("optimizer", numbers), self._section("schedule", numbers))

    def optimizer(self, numbers: Numbers | None = None) -> optax.GradientTransformation:
        """Builds the optimizer, from the given numbers or else from the config's."""
        return optimizers.build(self._section("optimizer", numbers), self.rate(numbers))

    def _section(self, section: str, numbers: Numbers | None) -> dict[str, Any]:
        return {key: (numbers or {}).get(f"{section}.{key}", value) for key, value in self.config[section].items()}
