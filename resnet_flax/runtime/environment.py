"""Describes the environment of a run: everything besides the config that its results depend on."""

import functools
import hashlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from resnet_flax import processor
from resnet_flax.networks.cpu_convolution import CHUNK_ELEMENTS


@functools.cache
def environment() -> dict[str, Any]:
    """Returns the versions, commit, devices, cores, precision and compiler flags that results depend on."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
        "commit": _commit(),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "cores": os.cpu_count(),
        "processor": processor.name(),
        "convolution_chunk": CHUNK_ELEMENTS,
        "matmul_precision": jax.config.values["jax_default_matmul_precision"] or "default",
        "xla_flags": shortened(" ".join(os.environ.get("XLA_FLAGS", "").split()) or "none"),
    }


def _commit() -> str | None:
    here = Path(__file__).resolve().parent
    try:
        git = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(git, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None  # not a checkout, or no git


def shortened(text: str) -> str:
    """Cuts a long text and adds its checksum: starts.jsonl with a longer text is refused when it is read."""
    return text if len(text) <= 300 else f"{text[:300]}... (SHA-256 {hashlib.sha256(text.encode()).hexdigest()[:16]})"
