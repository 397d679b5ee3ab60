"""The cache that keeps compiled programs from one process to the next."""

import os
from pathlib import Path


def use_cache(folder: Path) -> None:
    """Has jax keep compiled programs in a folder, unless the environment names one."""
    import jax  # for which --help does not wait

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(folder))
