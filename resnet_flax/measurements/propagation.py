"""Propagation in a network at a moment: at its start, or as a run has left it."""

import dataclasses
from typing import Any


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


def at_initialization(config: Any, images: int) -> Any:
    """The propagation in a config's network as it starts, on so many of its training images."""
    from resnet_flax.analysis import propagation
    from resnet_flax.networks import on_one_device
    from resnet_flax.training import fine_tuning
    from resnet_flax.training.parts import prepare

    parts = prepare(config)
    variables = fine_tuning.variables_at_start(config, parts.network, parts.image_shape)
    return propagation.measure(on_one_device(parts.network), variables, *parts.examples(images))


def after_training(run: Any, images: int) -> Any:
    """The propagation in a finished run's network, on so many of its training images."""
    import jax

    from resnet_flax.analysis import propagation
    from resnet_flax.networks import on_one_device
    from resnet_flax.training import trained

    found = trained.load(run.config, run.workdir)
    variables = jax.device_get(found.variables)
    return propagation.measure(on_one_device(found.parts.network), variables, *found.parts.examples(images))
