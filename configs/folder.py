"""Photographs of one's own, in a folder for each class: ImageNet's networks, from pretrained weights or from scratch.

python train.py --config=configs/folder.py:residual-18 --config.data.folder=FOLDER --workdir=runs/photos

FOLDER holds a folder for each class (a fifth of each is then set apart for testing, always the same), or train and
one of val, valid, validation and test with the class folders in both. Classes are sorted by name, 1, 10, 2 too, as
torchvision's ImageFolder does; --config.data.class_order=numbers sorts numbers as such. Networks' names are those of
configs/imagenet.py.

2000 steps of 64 images; SGD with momentum 0.9 and weight decay 1e-4; learning rate 0.01, down to zero along a cosine;
the shorter side brought to 256 pixels (bilinear), a random 224x224 crop and flip, ImageNet's means and deviations;
option B shortcuts. Errors are those of the central crop.

To start from pretrained weights: --config.init.weights=FILE --config.init.reset_head=True, and
--config.optimizer.trainable=head to train the last layer alone.
"""

from ml_collections import ConfigDict

from resnet_flax import config


def get_config(name: str = "residual-18") -> ConfigDict:
    """``UNIT-DEPTH``, depth one of 18, 34, 50, 101, 152; or ``vgg-DEPTH``, one of 11, 13, 16, 19."""
    c = config.base()
    c.model.family = "imagenet"
    config.apply_name(c, name)
    c.model.shortcut = "B"
    c.data.name = "folder"
    c.data.image_size = 224
    c.data.resize = 256
    c.data.interpolation = "bilinear"
    c.data.normalization = "imagenet"
    c.data.pad = 0
    c.data.flip = True

    c.optimizer.learning_rate = 0.01
    c.schedule.name = "cosine"
    c.train.steps = 2_000
    piecewise = tuple(c.schedule.milestones)

    def milestones(schedule: str, steps: int) -> tuple[int, ...]:
        return config.milestones(steps // 2, steps * 3 // 4) if schedule == "piecewise" else piecewise

    config.follow(c, "schedule.milestones", milestones, "schedule.name", "train.steps")
    c.train.batch_size = 64
    c.train.log_every = 20
    c.train.eval_every = c.train.checkpoint_every = 100
    c.train.eval_batch_size = 50
    return c
