"""ImageNet's networks and recipe (arXiv:1512.03385, section 3.4 and Table 1).

python -m resnet_flax.summary --config=configs/imagenet.py:residual-50

Plain and residual 18 and 34 (basic), 50, 101 and 152 (bottleneck, stride on the first 1x1); vgg-11, 13, 16 and 19.
600k steps of 256 images; SGD with momentum 0.9 and weight decay 1e-4; learning rate 0.1, divided by 10 when the error
plateaus, for which fixed milestones stand here: 30, 60 and 90 epochs of 1,281,167 images. Option B shortcuts. A 224x224
crop at a random scale in [256, 480], a random flip, the colour augmentation of AlexNet's paper, the mean image
subtracted. BN normalises 32 images together, as where 8 GPUs shared a batch (train.bn_group=0: all of them, over all
devices). Errors are those of the central crop at 256. To feed GPUs, decode in processes: --config.data.workers=16.

ImageNet itself has to be in --config.data.data_dir (or TFDS_DATA_DIR), in any of three forms: the original tar files,
prepared by TFDS (array_record), or class folders in train and val. What is there, and whether it is whole:

python -m resnet_flax.preflight --config=configs/imagenet.py:residual-50 --config.data.data_dir=FOLDER
"""

from ml_collections import ConfigDict

from resnet_flax import config

IMAGES = 1_281_167  # for training


def get_config(name: str = "residual-50") -> ConfigDict:
    """``UNIT-DEPTH``, depth one of 18, 34, 50, 101, 152; or ``vgg-DEPTH``, one of 11, 13, 16, 19."""
    c = config.base()
    c.model.family = "imagenet"
    config.apply_name(c, name)
    c.model.shortcut = "B"
    c.data.name = "imagenet2012"
    c.data.image_size, c.data.resize = 224, 256
    c.data.interpolation = "bilinear"
    c.data.pad = 0
    c.data.pipeline = "stream"
    c.data.augmentation, c.data.scales = "scale", (256, 480)
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
    c.train.eval_batch_size = 50
    c.train.eval_every = c.train.checkpoint_every = 5_000
    c.train.eval_batch_size = 50
    return c
