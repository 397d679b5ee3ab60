"""CIFAR-10 by the recipe of the paper (arXiv:1512.03385, section 4.2). docs/reproduce.md lists what differs.

python train.py --config=configs/cifar10.py:residual-20 --workdir=runs/cifar10-residual-20

The recipe: 64k steps of 128 images; SGD with momentum 0.9 and weight decay 1e-4; learning rate 0.1, divided by 10 at
32k and at 48k steps; He initialisation; BN over each half of a batch (64 images), as on the paper's two GPUs; 4 pixels
of padding, a random 32x32 crop, a random flip; the mean image subtracted; parameter-free shortcuts (option A);
single-view test. Networks of 110 layers and more train at a learning rate of 0.01 for the first 400 steps.

Expected test errors of residual-20, 32, 44, 56, 110, in percent: 8.75, 7.51, 7.17, 6.97, 6.61 +- 0.16 (the paper's
Table 6). A step of residual-20 takes 0.22 to 0.36 s on 2 CPU cores, which makes 4.0 to 6.4 hours for the run.

The paper chose its schedule on 45k training and 5k validation images: --config.data.validation=5000. For a quick run
with 16x16 images and a tenth of the schedule, add
--config.data.image_size=16 --config.data.pad=2 --config.train.steps=6400 --config.schedule.milestones="(3200,4800)".
"""

from ml_collections import ConfigDict

from resnet_flax import config


def get_config(name: str = "residual-20") -> ConfigDict:
    """Takes ``UNIT-DEPTH`` (6n+2), ``UNIT-bottleneck-DEPTH`` (9n+2) or ``vgg-DEPTH`` (11, 13, 16, 19)."""
    c = config.base()  # has the values of this recipe
    config.apply_name(c, name)
    config.follow(c, "train.bn_group", lambda batch: batch // 2, "train.batch_size")
    # With bottlenecks even the first stage widens, so that option A would pad in every stage.
    config.follow(c, "model.shortcut", lambda block: "B" if block == "bottleneck" else "A", "model.block")
    config.follow(
        c, "schedule.warmup_steps", lambda *keys: 400 if config.layers_of(*keys) >= 110 else 0, *config.DEPTH_KEYS
    )
    return c
