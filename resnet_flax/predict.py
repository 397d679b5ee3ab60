"""Predicts the classes of photographs:

python -m resnet_flax.predict --weights=resnet50.pth --config=configs/imagenet.py:residual-50 dog.jpg holidays/
python -m resnet_flax.predict --workdir=runs/photos --top=3 --view=10crop --picture=out.png holidays/

A folder stands for every image in it and in its subfolders. Each image gives a row as soon as it is classified: the
file, then the most probable classes. With --json each line is an object instead: {"file": ..., "top": [{"class": ...,
"probability": ...}, ...]}.

--view says which crops of an image are averaged: the center crop; the ten crops of arXiv:1512.03385 (section 3.4),
whose corners are those of the central square, while torchvision's TenCrop takes those of the whole rectangle; or the
whole image at five scales (multiscale), which takes longest and compiles once for each new image shape.

Messages go to stderr. A file that cannot be read is named there, the other files are classified, and the exit code is
2.
"""

from absl import flags
from ml_collections import config_flags

from resnet_flax import command
from resnet_flax.paths import expanded

config_flags.DEFINE_config_file(
    "config", None, "FILE:UNIT-DEPTH, with --weights; a run, and a file from export, have their own."
)
flags.DEFINE_string("workdir", None, "Run directory.")
flags.DEFINE_string("weights", None, "File of weights, instead of a run.")
flags.DEFINE_string("step", "latest", "Checkpoint of the run: a step, 'latest', or 'best'.")
flags.DEFINE_integer("top", 5, "Number of classes to print for an image.", lower_bound=1)
flags.DEFINE_enum("view", "center", ("center", "10crop", "multiscale"), "Crops of an image to average over.")
flags.DEFINE_bool("json", False, "Print a JSON object per line instead of a table.")
flags.DEFINE_string("picture", None, "Draw the first 12 images with their classes into this .png file.")
flags.register_validator("picture", lambda path: path is None or bool(expanded(path)))  # refused before images are read
flags.DEFINE_integer("batch_size", 32, "Crops in a batch.", lower_bound=1)

if __name__ == "__main__":
    command.run("resnet_flax.commands.predict", uses_devices=True, arguments=True, ends_with_reader=True)
