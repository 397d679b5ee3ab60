"""The main function of ``python -m resnet_flax.evaluate``."""

from absl import flags

from resnet_flax import command, model
from resnet_flax.errors import UserError
from resnet_flax.evaluation_config import config_of_file, config_of_run
from resnet_flax.evaluation_set import EvaluationSet, Trained, load_evaluation_set
from resnet_flax.interchange import weights
from resnet_flax.interchange.files import Weights
from resnet_flax.model import Model
from resnet_flax.model_evaluation import evaluate
from resnet_flax.paths import expanded
from resnet_flax.runs import rules
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.training import setup


def main() -> None:
    """Evaluates a checkpoint or a file of weights, and prints the loss and the error."""
    if (flags.FLAGS.workdir is None) == (flags.FLAGS.weights is None):
        raise UserError("give either --workdir=FOLDER of a run or --weights=FILE")
    file, given = None, (flags.FLAGS.config, command.given_keys("config"))
    if flags.FLAGS.weights:
        file = weights.read(expanded(flags.FLAGS.weights))
        config, trained = config_of_file(file, *given), Trained.of_file(file)
    else:
        run = RunDirectory(expanded(flags.FLAGS.workdir))
        config, trained = config_of_run(run.path, *given), Trained.of_run(run)
    chosen = load_evaluation_set(config, flags.FLAGS.split, flags.FLAGS.view, trained)
    result = evaluate(_network(file, chosen), chosen, flags.FLAGS.reestimate_bn, say=print)
    print("\n".join(result.lines(chosen.split)))


def _network(file: Weights | None, chosen: EvaluationSet) -> Model:
    """Loads the network from the file, or from the run's checkpoint if there is no file, and prints which."""
    if file is None:
        net = model.from_run(expanded(flags.FLAGS.workdir), flags.FLAGS.step)
        print(_checkpoint_of(net))
    else:
        config, data, default = chosen.config, chosen.data, None
        if data.access.fixed_size and file.preprocessing is None:
            normalization = data.access.normalization(config.data.normalization, data.train)
            default = setup.preprocessing(config, data, normalization)
        net = model.from_loaded(file, config, default)
        print(file.path)
    return net


def _checkpoint_of(net: Model) -> str:
    """Describes the evaluated checkpoint, and for an old run the rules that have changed since its training."""
    reasons = rules.old_rules(net.config, RunDirectory(expanded(flags.FLAGS.workdir)).rules())
    old = f"\nbegun under an old rule, and evaluated by today's: {'; '.join(reasons)}" if reasons else ""
    return f"{flags.FLAGS.workdir}: step {net.step} of {net.config.train.steps}{old}"
