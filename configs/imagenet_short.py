"""ImageNet in 40 epochs, with a recipe that is usual today instead of the paper's (configs/imagenet.py).

python train.py --config=configs/imagenet_short.py:residual-50 --config.data.data_dir=FOLDER --workdir=runs/short

The recipe: 50,040 steps of 1,024 images; Nesterov momentum 0.9; learning rate 0.4 (arXiv:1706.02677: 0.1 for each 256
images), which rises over 5 epochs and then falls to zero along a cosine; label smoothing 0.1, weight decay 5e-5 on
kernels only, the scale of each unit's last BN initialised to 0, the stride of bottlenecks on the 3x3 (arXiv:1812.01187,
sections 2 to 5). Inception's crops and flips, ImageNet's means and standard deviations; no colour augmentation. The
computation is in bfloat16, parameters and statistics are in float32. BN normalises 32 images together. This project has
not run the schedule on ImageNet.

For batches of several thousand images, use --config.optimizer.name=lars (arXiv:1708.03888). If a device's memory does
not hold its share of a batch, use --config.train.accumulate. --config.optimizer.ema=0.9999 evaluates a moving average
of the parameters. The run's BN statistics are those of the parameters themselves; resnet_flax.evaluate --reestimate_bn
computes those of the average.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from resnet_flax import config

IMAGES = 1_281_167  # training images


def get_config(name: str = "residual-50") -> ConfigDict:
    """Takes the names of configs/imagenet.py."""
    c = config.load("imagenet", name)
    config.follow(c, "model.zero_init_last", lambda unit: unit == "residual", "model.unit")
    c.model.bottleneck_stride = "3x3"
    c.model.dtype = "bfloat16"
    c.data.augmentation, c.data.colour = "inception", 0.0
    c.data.normalization = "imagenet"

    def epochs(count: int) -> Callable[[int], int]:
        return lambda batch: count * max(1, IMAGES // batch)

    c.train.batch_size = 1_024
    config.follow(c, "train.steps", epochs(40), "train.batch_size")
    c.train.label_smoothing = 0.1
    c.train.log_every = 100
    config.follow(c, "train.eval_every", epochs(1), "train.batch_size")
    config.follow(c, "train.checkpoint_every", epochs(1), "train.batch_size")
    config.follow(c, "optimizer.learning_rate", lambda batch: 0.1 * batch / 256, "train.batch_size")
    c.optimizer.nesterov = True
    c.optimizer.weight_decay = 5e-5
    c.optimizer.decay = "kernels"
    c.schedule.name = "cosine"
    c.schedule.warmup = "linear"
    config.follow(c, "schedule.warmup_steps", epochs(5), "train.batch_size")
    return c
