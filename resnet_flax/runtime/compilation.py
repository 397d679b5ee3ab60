"""Jax's persistent compilation cache."""

import contextlib
import os
import secrets
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

from resnet_flax.runtime.hosts import Hosts


def use_cache(folder: Path) -> None:
    """Sets the folder of jax's compilation cache, unless the user has set jax_compilation_cache_dir.

    Several processes use it only if all of them see the same folder, because only the first one writes programs. With
    folders of their own, the others would compile a program that the first one reads, and on GPUs wait for hours for
    its share of the autotuning.
    """
    # Without other processes, jax must not look for devices here.
    seen = not jax.distributed.is_initialized() or _is_seen_by_all(folder)
    if seen and not jax.config.values["jax_compilation_cache_dir"]:
        jax.config.update("jax_compilation_cache_dir", str(folder))


def _is_seen_by_all(folder: Path) -> bool:
    """Returns whether all processes, each of which must call this, see a file that the first one writes there."""
    hosts, number = Hosts(), secrets.randbits(31)
    with contextlib.suppress(OSError):
        if hosts.first:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f".seen-{number}").touch()
    marker = folder / f".seen-{hosts.from_first([number])[0]}"
    missed = hosts.any(not os.path.exists(marker))
    with contextlib.suppress(OSError):
        if hosts.first:
            marker.unlink()
    compilation_cache.reset_cache()  # the programs above were compiled without it, for which jax would keep it off
    return not missed
