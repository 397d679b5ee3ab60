"""Name and cache size of this machine's processor, without importing jax."""

import functools
import platform
from pathlib import Path

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


@functools.cache
def name() -> str:
    """Returns the name and vector extension, such as ``AMD EPYC (AVX-512)``.

    Processors of the same name may have different vector extensions, which affect speed and the last bits of results.
    """
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    about = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    model = about.get("model name") or platform.processor() or platform.machine()
    flags = about.get("flags", "").split()
    vectors = [known for flag, known in (("avx512f", "AVX-512"), ("avx2", "AVX2"), ("avx", "AVX")) if flag in flags]
    return f"{model} ({vectors[0]})" if vectors else model


@functools.cache
def shared_cache_bytes() -> int | None:
    """Returns the size of the L3 cache of the first core, or None if the system does not tell."""
    units = {"K": 1 << 10, "M": 1 << 20}
    for level in sorted(_CACHES.glob("index*/level")):
        try:
            if level.read_text().strip() == "3":
                size = (level.parent / "size").read_text().strip()
                return int(size[:-1]) * units[size[-1]]
        except (OSError, ValueError, KeyError, IndexError):
            continue
    return None
