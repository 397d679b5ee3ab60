"""ImageNet's networks and recipe (arXiv:1512.03385, section 3.4 and Table 1).

python -m resnet_flax.summary --config=configs/imagenet.py:residual-50

The networks: plain and residual with 18 and 34 layers (basic) and with 50, 101 and 152 (bottleneck, stride on the first
1x1); vgg-11, 13, 16 and 19.

The recipe: 600k steps of 256 images; SGD with momentum 0.9 and weight decay 1e-4; learning rate 0.1. The paper divides
it by 10 when the error plateaus; here it is divided after 30, 60 and 90 epochs of 1,281,167 images. Option B shortcuts.
A 224x224 crop at a random scale in [256, 480], a random flip, the colour augmentation of AlexNet's paper, the mean
image subtracted. BN normalises 32 images together, as if 8 GPUs shared a batch; train.bn_group=0 normalises the global
batch. Errors are measured on the central crop at scale 256. The scales follow another data.image_size in proportion.
To keep GPUs busy, decode in worker processes: --config.data.workers=16.

ImageNet itself has to be in --config.data.data_dir (or TFDS_DATA_DIR), in one of three forms: the original tar files,
prepared by TFDS (array_record), or class folders in train and val. This command tells what is there, and whether it is
complete:

python -m resnet_flax.preflight --config=configs/imagenet.py:residual-50 --config.data.data_dir=FOLDER
"""

from ml_collections import ConfigDict

from resnet_flax import config

IMAGES = 1_281_167  # training images


def get_config(name: str = "residual-50") -> ConfigDict:
    """Takes ``UNIT-DEPTH`` with a depth of 18, 34, 50, 101 or 152; or ``vgg-DEPTH`` with 11, 13, 16 or 19."""
    c = config.base()
    c.model.family = "imagenet"
    config.apply_name(c, name)
    c.model.shortcut = "B"
    c.data.name = "imagenet2012"
    c.data.image_size = 224
    config.follow(c, "data.resize", lambda size: round(size * 256 / 224), "data.image_size")
    c.data.interpolation = "bilinear"
    c.data.pad = 0
    c.data.pipeline = "stream"
    c.data.augmentation = "scale"
    config.follow(
        c,
        "data.scales",
        lambda size: tuple(max(1, round(size * side / 224)) for side in (256, 480)),
        "data.image_size",
    )
    c.data.colour = 0.1

    c.train.batch_size = 256
    c.train.bn_group = 32
    config.follow(c, "train.steps", lambda batch: max(1, 600_000 * 256 // batch), "train.batch_size")
    config.follow(
        c,
        "schedule.milestones",
        lambda batch: config.milestones(*(epochs * IMAGES // batch for epochs in (30, 60, 90))),
        "train.batch_size",
    )
    c.train.log_every = 500
    c.train.eval_every = c.train.checkpoint_every = 5_000
    c.train.eval_batch_size = 50
    return c
