"""The main function of ``python -m resnet_flax.export``."""

import json
import sys

import jax
from absl import flags

from resnet_flax import config as configs
from resnet_flax import model
from resnet_flax.interchange import files, names
from resnet_flax.interchange.weights import deviations
from resnet_flax.paths import expanded
from resnet_flax.runs.directory import RunDirectory


def main() -> None:
    """Reads a checkpoint and writes the file of weights."""
    output = expanded(flags.FLAGS.output)
    found = model.from_run(expanded(flags.FLAGS.workdir), flags.FLAGS.step)
    found.check_finite()
    if jax.process_index() > 0:
        return  # all processes hold the same variables, and process 0 writes them
    shape, family = found.preprocessing.image_shape, found.config.model.family
    tensors = names.to_tensors(found.network, shape, found.variables, family)
    known = RunDirectory(expanded(flags.FLAGS.workdir)).photographs()
    photographs = None if known is None else json.dumps(known)
    files.write(output, tensors, configs.to_json(found.config), found.preprocessing.to_json(), photographs)
    if differing := deviations(found.config):
        print(f"{output}: in the other library, it gives other logits: {'; '.join(differing)}", file=sys.stderr)
    print(f"{output}: {len(tensors)} tensors of {found.title}, step {found.step}")
