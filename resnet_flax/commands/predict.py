"""The work of ``python -m resnet_flax.predict``."""

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
from resnet_flax.model import Model, Named
from resnet_flax.paths import expanded
from resnet_flax.visible import visible

_DRAWN, _COLUMNS, _BARS = 12, 4, 10
_NAME_LENGTH = 26  # characters of a name in the picture
_CLASS_WIDTH = 24  # of a column of the table, where a class's name is not longer


def main() -> None:
    """Prints a row, or an object, for each image."""
    if (flags.FLAGS.workdir is None) == (flags.FLAGS.weights is None):
        raise UserError("give either --workdir=FOLDER of a run or --weights=FILE")
    if flags.FLAGS.workdir is not None and flags.FLAGS.config is not None:
        raise UserError("--config goes with --weights; the network of a run is that of its own config.json")
    if flags.FLAGS.picture is not None and Path(flags.FLAGS.picture).suffix.lower() != ".png":
        raise UserError(f"--picture={flags.FLAGS.picture} must end in .png")
    files = _files(command.arguments())
    model = _model()
    model.check_classifies()
    model.check_finite()
    print(f"{model.title}: {len(files)} image{'s' if len(files) > 1 else ''}, {flags.FLAGS.view}", file=sys.stderr)
    row = _json_line if flags.FLAGS.json else _table(files, model.preprocessing.classes)
    first: list[tuple[Path, Named]] = []  # images to be drawn
    failures: list[UserError] = []  # why files could not be read
    for file, found in zip(files, _classified(model, files), strict=True):
        if isinstance(found, UserError):
            failures.append(found)
            if len(files) > 1:
                tqdm.write(str(found), file=sys.stderr)  # above the bar of progress
            continue
        _print(row(file, found))
        if len(first) < _DRAWN:
            first.append((file, found))
    if first and flags.FLAGS.picture is not None and _is_first_process():
        _draw(first, len(files) - len(failures), expanded(flags.FLAGS.picture), model)
    if len(files) == 1 and failures:
        raise failures[0]
    if failures:
        raise UserError(f"{len(failures)} of {len(files)} files could not be read, as said above")


def _is_first_process() -> bool:
    return jax.process_index() == 0


def _print(line: str) -> None:
    """Above the bar of progress; whoever reads may stop (``| head``), which ends the command."""
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()


def _classified(model: Model, files: Sequence[Path]) -> Iterator[Named | UserError]:
    try:
        yield from model.classify(files, flags.FLAGS.top, flags.FLAGS.view, flags.FLAGS.batch_size)
    except Diverged as error:
        raise UserError(str(error)) from None


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
    skipped: Counter[str] = Counter()
    try:
        found = images(folder, skipped)
    except OSError as error:
        raise UserError(f"{error.filename or folder}: cannot be read: {error.strerror}") from None
    if not found:
        raise UserError(f"{folder}: no images are in this folder ({', '.join(SUFFIXES)})")
    if skipped:
        print(f"{folder}: {skipped_in_words(skipped)}", file=sys.stderr)
    return found


def _model() -> Model:
    if flags.FLAGS.weights is not None:
        return model.from_weights(expanded(flags.FLAGS.weights), flags.FLAGS.config, command.set_keys("config"))
    return model.from_run(expanded(flags.FLAGS.workdir), flags.FLAGS.step)


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


def _draw(shown: Sequence[tuple[Path, Named]], count: int, path: Path, model: Model) -> None:
    """The first of so many images in a grid, each over its classes; a PNG, whole or not at all."""
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


def _draw_image(ax: Axes, file: Path, channels: int) -> None:
    image = read_photo(file, channels)
    image.thumbnail((600, 600))
    ax.imshow(image, cmap="gray", vmin=0, vmax=255)
    ax.set_anchor("S")  # close to its bars
    ax.set_title(_shortened(_printable(file.name), end=8), fontsize=9, parse_math=False)


def _draw_bars(ax: Axes, named: Named) -> None:
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
