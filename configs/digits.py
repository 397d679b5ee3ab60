"""The 1,797 8x8 digits inside scikit-learn: the paper's picture in minutes, with nothing to download.

python train.py --config=configs/digits.py:plain-56 --workdir=runs/plain-56

20 epochs of batches of 32; SGD with momentum 0.9 and weight decay 1e-4; learning rate 0.005, a tenth of it from
epoch 10 and again from epoch 15; He initialisation; 1 pixel of padding, a random 8x8 crop, no flip
(a mirrored 2 is no digit); the mean image subtracted. The paper's rate of 0.1 leaves plain-56 at chance here.

On 2 CPU cores 20 s (20 layers) to 50 s (56 layers). results/digits/ holds the errors to expect.
A quick look: --config.train.steps=90.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from resnet_flax import config


def get_config(name: str = "residual-20") -> ConfigDict:
    """``UNIT-DEPTH``, ``UNIT-bottleneck-DEPTH`` or ``vgg-DEPTH``."""
    c = config.base()
    config.apply_name(c, name)
    c.data.name = "digits"
    c.data.pad = 1
    c.data.flip = False

    c.train.batch_size = 32
    c.optimizer.learning_rate = 0.005

    def epochs(count: int) -> Callable[[int], int]:
        return lambda batch: count * max(1, 1442 // batch)  # training images

    config.follow(c, "train.steps", epochs(20), "train.batch_size")
    config.follow(c, "schedule.milestones", lambda batch: (epochs(10)(batch), epochs(15)(batch)), "train.batch_size")
    config.follow(c, "train.log_every", epochs(1), "train.batch_size")
    config.follow(c, "train.eval_every", epochs(1), "train.batch_size")
    config.follow(c, "train.checkpoint_every", epochs(5), "train.batch_size")
    return c
