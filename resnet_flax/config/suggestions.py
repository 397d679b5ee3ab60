"""Suggestions for keys that do not exist, also under the names that PyTorch and other projects use."""

import difflib

from resnet_flax.config.table import KEYS

_DECAY = ("schedule.factor", "schedule.milestones")
_FOLDERS = ("data.folder", "data.data_dir")
_FILTERS = ("model.width", "model.stage_filters")
_LOG = ("train.log_every",)

# Names that other projects use, and the keys that do the same here.
_OTHERS_NAMES: dict[str, tuple[str, ...]] = {
    "lr": ("optimizer.learning_rate",), "rate": ("optimizer.learning_rate",), "wd": ("optimizer.weight_decay",),
    "l2": ("optimizer.weight_decay",), "optim": ("optimizer.name",), "opt": ("optimizer.name",),
    "optimizer": ("optimizer.name",), "betas": ("optimizer.beta1", "optimizer.beta2"),
    "eps": ("optimizer.epsilon", "model.bn_epsilon"), "ema_decay": ("optimizer.ema",),
    "freeze": ("optimizer.trainable",), "freeze_backbone": ("optimizer.trainable",),
    "lr_decay": _DECAY, "gamma": _DECAY, "lr_gamma": _DECAY, "decay_rate": _DECAY, "lr_step": _DECAY[1:],
    "step_size": _DECAY[1:], "lr_step_size": _DECAY[1:], "decay_epochs": _DECAY[1:], "scheduler": ("schedule.name",),
    "schedule": ("schedule.name",), "lr_scheduler": ("schedule.name",), "lr_schedule": ("schedule.name",),
    "warmup_epochs": ("schedule.warmup_steps",), "warmup_iters": ("schedule.warmup_steps",),
    "t_max": ("schedule.decay_steps",),
    "epochs": ("train.steps",), "num_epochs": ("train.steps",), "max_epochs": ("train.steps",),
    "max_steps": ("train.steps",), "num_steps": ("train.steps",), "total_steps": ("train.steps",),
    "iterations": ("train.steps",), "max_iters": ("train.steps",),
    "bs": ("train.batch_size",), "batch": ("train.batch_size",), "batchsize": ("train.batch_size",),
    "val_batch_size": ("train.eval_batch_size",), "test_batch_size": ("train.eval_batch_size",),
    "smoothing": ("train.label_smoothing",), "label_smooth": ("train.label_smoothing",),
    "grad_accum": ("train.accumulate",), "accumulation_steps": ("train.accumulate",),
    "gradient_accumulation_steps": ("train.accumulate",), "accumulate_grad_batches": ("train.accumulate",),
    "save_every": ("train.checkpoint_every",), "save_steps": ("train.checkpoint_every",),
    "save_freq": ("train.checkpoint_every",), "save_interval": ("train.checkpoint_every",),
    "checkpoint_freq": ("train.checkpoint_every",), "save_total_limit": ("train.keep_checkpoints",),
    "log_interval": _LOG, "log_freq": _LOG, "print_freq": _LOG, "print_every": _LOG, "logging_steps": _LOG,
    "eval_freq": ("train.eval_every",), "eval_interval": ("train.eval_every",), "eval_steps": ("train.eval_every",),
    "val_every": ("train.eval_every",), "topk": ("train.metrics",),
    "layers": ("model.depth",), "num_layers": ("model.depth",), "blocks": ("model.stage_units",),
    "stages": ("model.stage_units",), "num_blocks": ("model.stage_units",), "channels": _FILTERS,
    "filters": _FILTERS, "num_filters": _FILTERS, "num_channels": _FILTERS, "planes": _FILTERS,
    "width_multiplier": ("model.width",), "widen_factor": ("model.width",), "bottleneck": ("model.block",),
    "dropout_rate": ("model.dropout",), "drop_rate": ("model.dropout",), "dropout_p": ("model.dropout",),
    "batch_norm": ("model.norm",), "batchnorm": ("model.norm",), "bn": ("model.norm",), "use_bn": ("model.norm",),
    "zero_init_residual": ("model.zero_init_last",), "skip": ("model.unit", "model.shortcut"),
    "skip_connections": ("model.unit", "model.shortcut"), "amp": ("model.dtype",), "fp16": ("model.dtype",),
    "bf16": ("model.dtype",), "precision": ("model.dtype",), "mixed_precision": ("model.dtype",),
    "activation_checkpointing": ("model.remat",), "gradient_checkpointing": ("model.remat",),
    "dataset": ("data.name",), "data": ("data.name", "data.folder"), "path": _FOLDERS, "dir": _FOLDERS,
    "root": _FOLDERS, "data_path": _FOLDERS, "root_dir": _FOLDERS, "train_dir": _FOLDERS, "dataset_path": _FOLDERS,
    "num_workers": ("data.workers",), "num_threads": ("data.threads",),
    "size": ("data.image_size",), "img_size": ("data.image_size",), "input_size": ("data.image_size",),
    "imgsz": ("data.image_size",), "crop_size": ("data.image_size",), "resolution": ("data.image_size",),
    "resize_size": ("data.resize",), "val_resize_size": ("data.resize",), "mean": ("data.normalization",),
    "std": ("data.normalization",), "normalize": ("data.normalization",), "hflip": ("data.flip",),
    "random_flip": ("data.flip",), "padding": ("data.pad",), "color_jitter": ("data.colour",),
    "augment": ("data.augmentation", "data.transforms"), "transform": ("data.transforms",),
    "val_split": ("data.validation",), "val_size": ("data.validation",),
    "pretrained": ("init.weights",), "checkpoint": ("init.weights",), "random_seed": ("seed",), "rng_seed": ("seed",),
}  # fmt: skip

_DEVICES = "JAX_PLATFORMS=cpu or cuda in the environment chooses the devices, all of which are used: docs/devices.md"
_WORKDIR = "--workdir=FOLDER names the run directory"

# Names that other projects use for what is no key here, and what to do instead.
_NO_KEY = {
    "device": _DEVICES, "devices": _DEVICES, "gpu": _DEVICES, "gpus": _DEVICES, "cuda": _DEVICES, "no_cuda": _DEVICES,
    "gpu_id": _DEVICES, "gpu_ids": _DEVICES, "num_gpus": _DEVICES, "accelerator": _DEVICES,
    "output": _WORKDIR, "output_dir": _WORKDIR, "out_dir": _WORKDIR, "save_dir": _WORKDIR, "log_dir": _WORKDIR,
    "resume": "the same command resumes a run, from the newest checkpoint in its --workdir",
    "num_classes": "the data set says how many classes there are", "classes": "the data set says how many there are",
    "arch": "the name after the colon is the network: --config=FILE:residual-56",
    "model": "the name after the colon is the network: --config=FILE:residual-56",
    "network": "the name after the colon is the network: --config=FILE:residual-56",
}  # fmt: skip


def namesakes(name: str) -> list[str]:
    """Lists the keys of this name in any section, else the keys that do what other projects call so.

    ``lr`` stands for ``optimizer.learning_rate``.
    """
    last = _last(name)
    found = [key for key in KEYS if key.rpartition(".")[2] == last]
    return found or [key for key in _OTHERS_NAMES.get(last, ()) if key in KEYS]


def not_a_key(name: str) -> str:
    """Returns what to do instead of setting a key of this name, which other projects have; else an empty text."""
    return _NO_KEY.get(_last(name), "")


def unknown_key(key: str, known: list[str]) -> str:
    """Returns the error message for an unknown key, with the most similar known keys."""
    near = [k for k in namesakes(key) if k in known]
    if not near and (instead := not_a_key(key)):
        return f"config has no key {key!r}; {instead}"
    near = near or difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    section = [k for k in known if k.rpartition(".")[0] == key.rpartition(".")[0]]
    steps = " (an epoch is training images / train.batch_size of them)" if "epoch" in key else ""
    return f"config has no key {key!r}; did you mean {' or '.join(near or section or known)}?{steps}"


def _last(name: str) -> str:
    return name.rpartition(".")[2].replace("-", "_").lower()
