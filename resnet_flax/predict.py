"""Predicts the classes of photographs:

python -m resnet_flax.predict --weights=resnet50.pth --config=configs/imagenet.py:residual-50 dog.jpg holidays/
python -m resnet_flax.predict --workdir=runs/photos --top=3 --view=10crop --picture=out.png holidays/

Of a folder, every image in it and in the folders inside it. A row for each image, as soon as it is known: the file,
then the most probable classes; with --json an object a line instead: {"file": ..., "top": [{"class": ...,
"probability": ...}, ...]}.
--view says over which views of an image probabilities are averaged: its central crop; the ten crops of arXiv:1512.03385
(section 3.4), whose corners are those of the central square, while torchvision's TenCrop takes them from the whole
rectangle; or the whole image at five scales (multiscale), which takes longest, and for each new shape of an image
again.
Messages go to stderr. Files that cannot be read are said there, the others classified, and the exit code is 2.
"""

from absl import flags
from ml_collections import config_flags

from resnet_flax import command
from resnet_flax.paths import expanded

config_flags.DEFINE_config_file(
    "config", None, "FILE:UNIT-DEPTH, with --weights; a run, and a file that export wrote, have their own."
)
flags.DEFINE_string("workdir", None, "Folder of a run.")
flags.DEFINE_string("weights", None, "File of weights, in place of a run.")
flags.DEFINE_string("step", "latest", "Checkpoint of the run: a step, 'latest', or 'best'.")
flags.DEFINE_integer("top", 5, "How many classes to name for an image.", lower_bound=1)
flags.DEFINE_enum("view", "center", ("center", "10crop", "multiscale"), "Views that are averaged over.")
flags.DEFINE_bool("json", False, "Print an object a line instead of a table.")
flags.DEFINE_string("picture", None, "Draw the images with their classes into this .png, 12 at most.")
flags.register_validator("picture", lambda path: path is None or bool(expanded(path)))  # before the images are read
flags.DEFINE_integer("batch_size", 32, "Views that are computed at once.", lower_bound=1)

if __name__ == "__main__":
    command.run("resnet_flax.commands.predict", uses_devices=True, arguments=True, ends_with_reader=True)
