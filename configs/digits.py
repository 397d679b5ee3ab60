"""The 1,797 8x8 digits inside scikit-learn: shows the paper's effect of depth in minutes, without a download.

python train.py --config=configs/digits.py:plain-56 --workdir=runs/plain-56

The recipe: 20 epochs with batches of 32; SGD with momentum 0.9 and weight decay 1e-4; learning rate 0.005, divided by
10 at epochs 10 and 15; He initialisation; 1 pixel of padding, a random 8x8 crop, no flip (a mirrored 2 is not a digit);
the mean image subtracted. At the paper's learning rate of 0.1, plain-56 stays near chance on these images: 86% training
error.

A run takes 20 s (20 layers) to 50 s (56 layers) on 2 CPU cores. results/digits/ holds the expected errors.
For a quick run, add --config.train.steps=90.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from resnet_flax import config


def get_config(name: str = "residual-20") -> ConfigDict:
    """Takes ``UNIT-DEPTH``, ``UNIT-bottleneck-DEPTH`` or ``vgg-DEPTH``."""
    c = config.base()
    config.apply_name(c, name)
    c.data.name = "digits"
    c.data.pad = 1
    c.data.flip = False

    c.train.batch_size = 32
    c.optimizer.learning_rate = 0.005

    def epochs(count: int) -> Callable[[int], int]:
        return lambda batch: count * max(1, 1442 // batch)  # 1,442 training images

    config.follow(c, "train.steps", epochs(20), "train.batch_size")
    config.follow(c, "schedule.milestones", lambda batch: (epochs(10)(batch), epochs(15)(batch)), "train.batch_size")
    config.follow(c, "train.log_every", epochs(1), "train.batch_size")
    config.follow(c, "train.eval_every", epochs(1), "train.batch_size")
    config.follow(c, "train.checkpoint_every", epochs(5), "train.batch_size")
    return c
