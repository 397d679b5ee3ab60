"""Jax's persistent compilation cache."""

import os
from pathlib import Path


def use_cache(folder: Path) -> None:
    """Sets the folder of jax's compilation cache, unless JAX_COMPILATION_CACHE_DIR is set."""
    import jax  # imported late, so that --help does not wait for it

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(folder))
