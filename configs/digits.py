"""The 1,797 8x8 digits inside scikit-learn: the paper's picture in minutes, with nothing to download.

python train.py --config=configs/digits.py:plain-56 --workdir=runs/plain-56
"""

from ml_collections import ConfigDict

from resnet_flax import config


def get_config(name: str = "residual-20") -> ConfigDict:
    """``UNIT-DEPTH`` or ``UNIT-bottleneck-DEPTH``."""
    c = config.base()
    config.apply_name(c, name)
    c.data.name = "digits"
    c.data.pad = 1
    c.data.flip = False

    images, epochs = 1442, 15
    c.train.batch_size = 64
    steps_per_epoch = images // c.train.batch_size
    c.train.steps = epochs * steps_per_epoch
    c.optimizer.learning_rate = 0.03
    c.schedule.milestones = (c.train.steps // 2, c.train.steps * 3 // 4)
    c.train.log_every = steps_per_epoch // 2
    c.train.eval_every = steps_per_epoch
    c.train.checkpoint_every = 5 * steps_per_epoch
    return c
