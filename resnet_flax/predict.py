"""What a network takes photographs for:

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

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from absl import flags
from ml_collections import config_flags
from tqdm import tqdm

from resnet_flax import command
from resnet_flax.atomic import replacing
from resnet_flax.errors import Diverged, UserError
from resnet_flax.paths import expanded
from resnet_flax.visible import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from resnet_flax.model import Model

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "FILE:UNIT-DEPTH, with --weights; a run, and a file that export wrote, have their own."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run.")
_WEIGHTS = flags.DEFINE_string("weights", None, "File of weights, in place of a run.")
_STEP = flags.DEFINE_string("step", "latest", "Checkpoint of the run: a step, 'latest', or 'best'.")
_TOP = flags.DEFINE_integer("top", 5, "How many classes to name for an image.", lower_bound=1)
_VIEW = flags.DEFINE_enum("view", "center", ("center", "10crop", "multiscale"), "Views that are averaged over.")
_JSON = flags.DEFINE_bool("json", False, "Print an object a line instead of a table.")
_PICTURE = flags.DEFINE_string("picture", None, "Draw the images with their classes into this .png, 12 at most.")
flags.register_validator(_PICTURE, lambda path: path is None or bool(expanded(path)))  # before the images are read
_BATCH = flags.DEFINE_integer("batch_size", 32, "Views that are computed at once.", lower_bound=1)

_DRAWN, _COLUMNS, _BARS = 12, 4, 10
_NAME_LENGTH = 26  # characters of a name in the picture
_CLASS_WIDTH = 24  # of a column of the table, where a class's name is not longer

Named = list[tuple[str, float]]  # classes and probabilities, the most probable first


def main() -> None:
    """Prints a row, or an object, for each image."""
    if (_WORKDIR.value is None) == (_WEIGHTS.value is None):
        raise UserError("give either --workdir=FOLDER of a run or --weights=FILE")
    if _WORKDIR.value is not None and _CONFIG.value is not None:
        raise UserError("--config goes with --weights; the network of a run is that of its own config.json")
    if _PICTURE.value is not None and Path(_PICTURE.value).suffix.lower() != ".png":
        raise UserError(f"--picture={_PICTURE.value} must end in .png")
    files = _files(command.arguments())
    model = _model()
    model.check_classifies()
    model.check_finite()
    print(f"{model.title}: {len(files)} image{'s' if len(files) > 1 else ''}, {_VIEW.value}", file=sys.stderr)
    row = _json_line if _JSON.value else _table(files, model.preprocessing.classes)
    first, failures = [], []  # images to be drawn; why files could not be read
    for file, found in _classify(model, files):
        if isinstance(found, UserError):
            failures.append(found)
            if len(files) > 1:
                tqdm.write(str(found), file=sys.stderr)  # above the bar of progress
            continue
        _print(row(file, found))
        if len(first) < _DRAWN:
            first.append((file, found))
    if first and _PICTURE.value is not None and _is_first_process():
        _draw(first, len(files) - len(failures), expanded(_PICTURE.value), model)
    if len(files) == 1 and failures:
        raise failures[0]
    if failures:
        raise UserError(f"{len(failures)} of {len(files)} files could not be read, as said above")


def _is_first_process() -> bool:
    import jax

    return jax.process_index() == 0


def _print(line: str) -> None:
    """Above the bar of progress; whoever reads may stop (``| head``), which ends the command."""
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()


def _files(given: Sequence[str]) -> list[Path]:
    """The files named, and those in the folders named."""
    if not given:
        raise UserError("name an image or a folder of images, such as: ... --workdir=runs/photos holidays/")
    files = []
    for path in map(expanded, given):
        if not os.path.exists(path):  # Path's own fails where a name is too long
            raise UserError(f"{path}: there is no such file or folder")
        files += _below(path) if path.is_dir() else [path]
    return files


def _below(folder: Path) -> list[Path]:
    from collections import Counter

    from resnet_flax.data.folders import SUFFIXES, images, passed_over

    skipped: Counter[str] = Counter()
    try:
        found = images(folder, skipped)
    except OSError as error:
        raise UserError(f"{error.filename or folder}: cannot be read: {error.strerror}") from None
    if not found:
        raise UserError(f"{folder}: no images are in this folder ({', '.join(SUFFIXES)})")
    if skipped:
        print(f"{folder}: {passed_over(skipped)}", file=sys.stderr)
    return found


def _model() -> "Model":
    from resnet_flax import model

    if _WEIGHTS.value is not None:
        return model.from_weights(expanded(_WEIGHTS.value), _CONFIG.value, command.set_keys("config"))
    return model.from_run(expanded(_WORKDIR.value), _STEP.value)


def _classify(model: "Model", files: Sequence[Path]) -> Iterator[tuple[Path, Named | UserError]]:
    from resnet_flax.analysis.scoring import scored

    what, classes = (model.network, model.variables, model.preprocessing), model.preprocessing.classes
    try:
        for file, row in zip(files, scored(*what, files, _VIEW.value, _BATCH.value), strict=True):
            yield file, row if isinstance(row, UserError) else _top(row, classes)
    except Diverged as error:
        raise UserError(str(error)) from None


def _top(row: np.ndarray, classes: Sequence[str]) -> Named:
    # Of equal ones the first, whatever the machine: a stable sort.
    best = np.argsort(-row, kind="stable")[: _TOP.value]
    return [(classes[i] if i < len(classes) and classes[i] else f"class {i}", float(np.exp(row[i]))) for i in best]


def _json_line(file: Path, named: Named) -> str:
    return json.dumps({"file": str(file), "top": [{"class": name, "probability": p} for name, p in named]})


def _table(files: Sequence[Path], classes: Sequence[str]) -> Callable[[Path, Named], str]:
    """Makes rows with columns of the same widths, known beforehand: file, class, percent, class, percent, ..."""
    file_width = max(len(_printable(file)) for file in files)
    class_width = min(max(len(_printable(name)) for name in classes), _CLASS_WIDTH)

    def row(file: Path, named: Named) -> str:
        cells = (f"{_printable(name):{class_width}}  {p:>{len('100.0%')}.1%}" for name, p in named)
        return "  ".join([f"{_printable(file):{file_width}}", *cells])

    return row


def _draw(shown: Sequence[tuple[Path, Named]], count: int, path: Path, model: "Model") -> None:
    """The first of so many images in a grid, each over its classes; a PNG, whole or not at all."""
    from matplotlib.figure import Figure

    columns = min(len(shown), _COLUMNS)
    rows, bars = -(-len(shown) // columns), min(len(shown[0][1]), _BARS)
    heights = [3.0, 0.24 * bars + 0.1]  # inches, of an image and of its bars
    figure = Figure(figsize=(2.9 * columns + 0.2, rows * (sum(heights) + 0.3)), layout="constrained")
    axes = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=heights * rows)
    for ax in axes.flat:
        ax.set_axis_off()
    for i, (file, named) in enumerate(shown):
        row, column = divmod(i, columns)
        _draw_image(axes[2 * row, column], file, model.preprocessing.channels)
        _draw_bars(axes[2 * row + 1, column], named[:bars])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from")  # a box stands for a letter that the font lacks
            figure.savefig(partial, dpi=150, format="png")
    except OSError as error:
        raise UserError(f"--picture={path}: cannot be written: {error.strerror}") from None
    left_out = count - len(shown)
    print(f"{path}: the first {_DRAWN} images, {left_out} more are left out" if left_out else path, file=sys.stderr)


def _draw_image(ax: "Axes", file: Path, channels: int) -> None:
    from resnet_flax.data.decoding import read_photo

    image = read_photo(file, channels)
    image.thumbnail((600, 600))
    ax.imshow(image, cmap="gray", vmin=0, vmax=255)
    ax.set_anchor("S")  # close to its bars
    ax.set_title(_shortened(_printable(file.name), end=8), fontsize=9, parse_math=False)


def _draw_bars(ax: "Axes", named: Named) -> None:
    """A bar for each class, its name on it in black: light enough to be read in grey."""
    for i, (name, probability) in enumerate(named):
        ax.barh(i, 1, height=0.84, color="0.95")
        ax.barh(i, probability, height=0.84, color="#56b4e9" if i == 0 else "0.78")
        ax.text(0.02, i, _shortened(_printable(name)), va="center", fontsize=8, parse_math=False)
        ax.text(0.98, i, f"{probability:.1%}", va="center", ha="right", fontsize=8)
    ax.set_xlim(0, 1)
    ax.set_ylim(len(named) - 0.5, -0.5)


def _printable(name: str | Path) -> str:
    """A name of a file or folder, which need not be UTF-8, as text that is."""
    return visible(os.fsencode(name).decode(errors="replace"))


def _shortened(text: str, end: int = 0) -> str:
    """At most so long that it fits, with so many characters of its end."""
    if len(text) <= _NAME_LENGTH:
        return text
    return f"{text[: _NAME_LENGTH - 1 - end]}…{text[len(text) - end :]}"


if __name__ == "__main__":
    command.run(main, uses_devices=True, arguments=True, ends_with_reader=True)
