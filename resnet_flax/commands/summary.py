"""The main function of ``python -m resnet_flax.summary``."""

import dataclasses
import json
from typing import Any

import jax
from absl import flags
from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax.analysis.published_sizes import published
from resnet_flax.analysis.stage_costs import stage_costs
from resnet_flax.data import datasets
from resnet_flax.errors import UserError
from resnet_flax.networks import build
from resnet_flax.reporting.document import aligned


def main() -> None:
    """Prints the table, or the JSON."""
    # Only shapes are computed, and a GPU may be busy with training.
    jax.config.update("jax_platforms", "cpu")
    config = configs.resolve(flags.FLAGS.config)
    with jax.enable_x64("float64" in (config.model.dtype, config.model.param_dtype)):
        summary = _summary(config, _image_shape(config), _classes(config), _batch(config))
    print(json.dumps(summary, indent=2) if flags.FLAGS.json else _text(summary))


def _summary(config: ConfigDict, image_shape: tuple[int, int, int], classes: int, batch: int) -> dict[str, Any]:
    model = config.model
    try:
        stages = stage_costs(build(model, classes), image_shape, batch)
    except ValueError as error:
        raise UserError(f"images of {'x'.join(map(str, image_shape))}: {error}") from None
    counts = ("parameters", "multiply_adds", "activation_bytes")
    return {
        "network": configs.name_of(model),
        "data": config.data.name,
        "image": image_shape,
        "classes": classes,
        "batch": batch,
        "stages": [dataclasses.asdict(stage) for stage in stages],
        "total": {
            "units": sum(stage.units for stage in stages),
            **{count: sum(getattr(stage, count) for stage in stages) for count in counts},
        },
        "published": [dataclasses.asdict(p) for p in published(model, image_shape, classes)],
    }


def _image_shape(config: ConfigDict) -> tuple[int, int, int]:
    if flags.FLAGS.image is None:
        shape = datasets.image_shape(config.data)
        if shape is None:
            raise UserError(
                f"data.name={config.data.name!r} with data.image_size={config.data.image_size}: the shape of its "
                f"images is unknown; give it as --image=H,W,C, such as --image=224,224,3"
            )
        return shape
    if len(flags.FLAGS.image) != 3 or not all(text.strip().isdecimal() and int(text) for text in flags.FLAGS.image):
        raise UserError(f"--image={','.join(flags.FLAGS.image)} must be H,W,C, three whole numbers such as 224,224,3")
    height, width, channels = map(int, flags.FLAGS.image)
    return height, width, channels


def _classes(config: ConfigDict) -> int:
    classes = flags.FLAGS.classes if flags.FLAGS.classes is not None else datasets.classes(config.data)
    if classes is None:
        raise UserError(f"data.name={config.data.name!r}: its number of classes is unknown; give --classes=N")
    if classes < 1:
        raise UserError(f"--classes={classes} must be at least 1")
    return classes


def _batch(config: ConfigDict) -> int:
    batch = config.train.batch_size if flags.FLAGS.batch is None else flags.FLAGS.batch
    if batch < 1:
        raise UserError(f"--batch={batch} must be at least 1")
    return batch


def _text(summary: dict[str, Any]) -> str:
    image = "x".join(map(str, summary["image"]))
    title = f"{summary['network']} on {summary['data']}: images {image}, {summary['classes']} classes"
    header = ("stage", "output", "units", "parameters", "multiply-adds", f"activations, batch {summary['batch']}")
    lines = [
        (s["name"], "x".join(map(str, s["output"])), str(s["units"] or "-"), *_numbers(s)) for s in summary["stages"]
    ]
    total = summary["total"]
    lines.append(("total", "", str(total["units"]), *_numbers(total)))
    text = f"{title}\n\n{aligned([header, *lines], left={0, 1})}"
    if not summary["published"]:
        return text + "\n\nno published size is known for this network"
    rows = [("published", "published value", "this network", "difference", "source")]
    for p in summary["published"]:
        here, quantity = total[p["quantity"]], p["quantity"].replace("_", "-")
        difference = "none" if here == p["value"] else f"{here / p['value'] - 1:+.2%}"
        rows.append((quantity, p["printed"], f"{here:,}", difference, f"{p['name']}: {p['source']}"))
    return f"{text}\n\n{aligned(rows, left={0, 4})}"


def _numbers(row: dict[str, Any]) -> tuple[str, ...]:
    return f"{row['parameters']:,}", f"{row['multiply_adds']:,}", f"{row['activation_bytes'] / 1e6:,.1f} MB"
