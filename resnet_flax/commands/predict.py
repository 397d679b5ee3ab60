"""The main function of ``python -m resnet_flax.predict``."""

import json
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
from absl import flags
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tqdm import tqdm

from resnet_flax import command, model
from resnet_flax.atomic import replacing
from resnet_flax.data.decoding import read_photo
from resnet_flax.data.folders import SUFFIXES, images, skipped_in_words
from resnet_flax.errors import Diverged, UserError
from resnet_flax.escaping import escape_hidden
from resnet_flax.model import Model, Named
from resnet_flax.paths import expanded

_DRAWN, _COLUMNS, _BARS = 12, 4, 10  # of the picture: images, images in a row, classes of an image
_NAME_LENGTH = 26  # most characters of a name in the picture
_CLASS_WIDTH = 24  # most characters to which the table pads the name of a class


def main() -> None:
    """Prints a row, or a JSON object, for each image."""
    if (flags.FLAGS.workdir is None) == (flags.FLAGS.weights is None):
        raise UserError("give either --workdir=FOLDER of a run or --weights=FILE")
    if flags.FLAGS.workdir is not None and flags.FLAGS.config is not None:
        raise UserError("--config goes with --weights; leave it out, as a run's own config.json names its network")
    if flags.FLAGS.picture is not None and Path(flags.FLAGS.picture).suffix.lower() != ".png":
        raise UserError(f"--picture={flags.FLAGS.picture} must end in .png")
    files = _files(command.arguments())
    net = _load_model()
    net.check_classifies()
    net.check_finite()
    print(f"{net.title}: {len(files)} image{'s' if len(files) > 1 else ''}, {flags.FLAGS.view}", file=sys.stderr)
    row = _json_line if flags.FLAGS.json else _table(files, net.preprocessing.classes)
    first: list[tuple[Path, Named]] = []  # images for the picture
    failures: list[UserError] = []  # errors of files that could not be read
    for file, found in zip(files, _classify(net, files), strict=True):
        if isinstance(found, UserError):
            failures.append(found)
            if len(files) > 1:
                tqdm.write(str(found), file=sys.stderr)  # above the progress bar
            continue
        _print(row(file, found))
        if len(first) < _DRAWN:
            first.append((file, found))
    if first and flags.FLAGS.picture is not None and _is_first_process():
        _draw(first, len(files) - len(failures), expanded(flags.FLAGS.picture), net)
    if len(files) == 1 and failures:
        raise failures[0]
    if failures:
        raise UserError(f"{len(failures)} of {len(files)} files could not be read; the lines above name them")


def _is_first_process() -> bool:
    return jax.process_index() == 0


def _print(line: str) -> None:
    """Prints a line above the progress bar, at once. If the reader has gone (``| head``), this ends the command."""
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()


def _classify(net: Model, files: Sequence[Path]) -> Iterator[Named | UserError]:
    try:
        yield from net.classify(files, flags.FLAGS.top, flags.FLAGS.view, flags.FLAGS.batch_size)
    except Diverged as error:
        raise UserError(str(error)) from None


def _files(given: Sequence[str]) -> list[Path]:
    """Lists the named files, and the images in the named folders."""
    if not given:
        raise UserError("name an image or a folder of images, such as: ... --workdir=runs/photos holidays/")
    files = []
    for path in map(expanded, given):
        if not os.path.exists(path):  # Path.exists raises if a name is too long
            raise UserError(f"{path}: there is no such file or folder")
        files += _images_in(path) if path.is_dir() else [path]
    return files


def _images_in(folder: Path) -> list[Path]:
    skipped: Counter[str] = Counter()
    try:
        found = images(folder, skipped)
    except OSError as error:
        raise UserError(f"{error.filename or folder}: cannot be read: {error.strerror}") from None
    if not found:
        raise UserError(f"{folder}: no images are in this folder (files that end in {', '.join(SUFFIXES)})")
    if skipped:
        print(f"{folder}: {skipped_in_words(skipped)}", file=sys.stderr)
    return found


def _load_model() -> Model:
    if flags.FLAGS.weights is not None:
        return model.from_weights(expanded(flags.FLAGS.weights), flags.FLAGS.config, command.given_keys("config"))
    return model.from_run(expanded(flags.FLAGS.workdir), flags.FLAGS.step)


def _json_line(file: Path, named: Named) -> str:
    return json.dumps({"file": str(file), "top": [{"class": name, "probability": p} for name, p in named]})


def _table(files: Sequence[Path], classes: Sequence[str]) -> Callable[[Path, Named], str]:
    """Returns a function that formats a row: file, class, percent, class, percent, ...

    The column widths are fixed beforehand, so that each row can be printed as soon as it is known.
    """
    file_width = max(len(_printable(file)) for file in files)
    class_width = min(max(len(_printable(name)) for name in classes), _CLASS_WIDTH)

    def row(file: Path, named: Named) -> str:
        cells = (f"{_printable(name):{class_width}}  {p:>{len('100.0%')}.1%}" for name, p in named)
        return "  ".join([f"{_printable(file):{file_width}}", *cells])

    return row


def _draw(shown: Sequence[tuple[Path, Named]], count: int, path: Path, net: Model) -> None:
    """Draws images in a grid, each above its classes, and writes the PNG atomically.

    Args:
      shown: The images to draw, with their predictions.
      count: The number of images that were classified.
    """
    columns = min(len(shown), _COLUMNS)
    rows, bars = -(-len(shown) // columns), min(len(shown[0][1]), _BARS)
    heights = [3.0, 0.24 * bars + 0.1]  # inches: an image, its bars
    figure = Figure(figsize=(2.9 * columns + 0.2, rows * (sum(heights) + 0.3)), layout="constrained")
    axes = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=heights * rows)
    for ax in axes.flat:
        ax.set_axis_off()
    for i, (file, named) in enumerate(shown):
        row, column = divmod(i, columns)
        _draw_image(axes[2 * row, column], file, net.preprocessing.channels)
        _draw_bars(axes[2 * row + 1, column], named[:bars])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from")  # matplotlib draws a box for such a letter
            figure.savefig(partial, dpi=150, format="png")
    except OSError as error:
        raise UserError(f"--picture={path}: cannot be written: {error.strerror}") from None
    left_out = count - len(shown)
    print(f"{path}: the first {_DRAWN} images, {left_out} more are left out" if left_out else path, file=sys.stderr)


def _draw_image(ax: Axes, file: Path, channels: int) -> None:
    image = read_photo(file, channels)
    image.thumbnail((600, 600))
    ax.imshow(image, cmap="gray", vmin=0, vmax=255)
    ax.set_anchor("S")  # close to its bars
    ax.set_title(_shortened(_printable(file.name), end=8), fontsize=9, parse_math=False)


def _draw_bars(ax: Axes, named: Named) -> None:
    """Draws a bar for each class with the name on it. The bars are light, so that a grey print stays readable."""
    for i, (name, probability) in enumerate(named):
        ax.barh(i, 1, height=0.84, color="0.95")
        ax.barh(i, probability, height=0.84, color="#56b4e9" if i == 0 else "0.78")
        ax.text(0.02, i, _shortened(_printable(name)), va="center", fontsize=8, parse_math=False)
        ax.text(0.98, i, f"{probability:.1%}", va="center", ha="right", fontsize=8)
    ax.set_xlim(0, 1)
    ax.set_ylim(len(named) - 0.5, -0.5)


def _printable(name: str | Path) -> str:
    """Converts a file name, which need not be valid UTF-8, to text that can be printed."""
    return escape_hidden(os.fsencode(name).decode(errors="replace"))


def _shortened(text: str, end: int = 0) -> str:
    """Shortens a text to ``_NAME_LENGTH`` characters with an ellipsis, and keeps the last ``end`` characters."""
    if len(text) <= _NAME_LENGTH:
        return text
    return f"{text[: _NAME_LENGTH - 1 - end]}…{text[len(text) - end :]}"
