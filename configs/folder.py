"""ImageNet's networks on your own photographs in class folders, from pretrained weights or from scratch.

python train.py --config=configs/folder.py:residual-18 --config.data.folder=FOLDER --workdir=runs/photos

FOLDER holds one folder for each class, of which a fifth (the same images in every run) is set aside for testing; or it
holds train and one of val, valid, validation and test, with the class folders in both. Classes are sorted by name (1,
10, 2), as torchvision's ImageFolder does; --config.data.class_order=numbers sorts them as numbers. The names of
networks are those of configs/imagenet.py. For small images, add --config.model.family=cifar
--config.data.image_size=32; the names are then those of configs/cifar10.py.

The recipe: 2000 steps of 64 images; SGD with momentum 0.9 and weight decay 1e-4; learning rate 0.01, which falls to
zero along a cosine; the shorter side resized to 256 pixels (bilinear), a random 224x224 crop and flip, ImageNet's means
and standard deviations; option B shortcuts. Errors are measured on the central crop. The shorter side follows another
data.image_size in proportion.

To start from pretrained weights, add --config.init.weights=FILE --config.init.reset_head=True. To train only the last
layer, also add --config.optimizer.trainable=head.
"""

from ml_collections import ConfigDict

from resnet_flax import config


def get_config(name: str = "residual-18") -> ConfigDict:
    """Takes ``UNIT-DEPTH`` with a depth of 18, 34, 50, 101 or 152; or ``vgg-DEPTH`` with 11, 13, 16 or 19.

    With ``model.family=cifar`` the depths are 6n+2.
    """
    c = config.base()
    c.model.family = "imagenet"
    config.apply_name(c, name)
    c.model.shortcut = "B"
    c.data.name = "folder"
    c.data.image_size = 224
    config.follow(c, "data.resize", lambda size: round(size * 256 / 224), "data.image_size")
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
