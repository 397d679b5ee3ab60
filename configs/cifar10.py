"""CIFAR-10 by the recipe of the paper, to the letter (arXiv:1512.03385, section 4.2).

python train.py --config=configs/cifar10.py:residual-20 --workdir=runs/cifar10-residual-20

64k steps of 128 images; SGD with momentum 0.9 and weight decay 1e-4; learning rate 0.1, a tenth of it from 32k and
again from 48k steps; He initialisation; batches normalised in two halves of 64, as on the paper's two GPUs; 4 pixels
of padding, a random 32x32 crop, a random flip; the mean image subtracted; parameter-free shortcuts (option A);
single-view test. Networks of 110 layers and more start at 0.01 for 400 steps.

Test error to expect for residual-20, 32, 44, 56, 110: 8.75, 7.51, 7.17, 6.97, 6.61 +- 0.16 (the paper's Table 6).
About 0.36 s a step for residual-20 on 2 CPU cores (6 hours and a half in all).

The paper chose its schedule on 45k/5k images: --config.data.validation=5000. A quick look, 16x16 images and a tenth
of the schedule: configs/cifar10.py:residual-20 with
--config.data.image_size=16 --config.data.pad=2 --config.train.steps=6400 --config.schedule.milestones="(3200,4800)".
"""

from ml_collections import ConfigDict

from resnet_flax import config


def get_config(name: str = "residual-20") -> ConfigDict:
    """``UNIT-DEPTH`` (6n+2), ``UNIT-bottleneck-DEPTH`` (9n+2) or ``vgg-DEPTH`` (11, 13, 16, 19)."""
    c = config.base()  # whose values are this recipe's
    config.apply_name(c, name)
    config.follow(c, "train.bn_group", lambda batch: batch // 2, "train.batch_size")
    # The first stage of bottlenecks widens, too.
    config.follow(c, "model.shortcut", lambda block: "B" if block == "bottleneck" else "A", "model.block")
    config.follow(
        c, "schedule.warmup_steps", lambda *keys: 400 if config.layers_of(*keys) >= 110 else 0, *config.DEPTH_KEYS
    )
    return c
