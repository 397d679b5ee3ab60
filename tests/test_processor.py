"""The processor's name and cache size as the operating system reports them."""

import platform

import pytest

from resnet_flax import processor


@pytest.mark.parametrize(
    ("told", "named"),
    [
        ("model name\t: AMD EPYC\nflags\t\t: fpu avx avx2\n\n", "AMD EPYC (AVX2)"),
        ("model name\t: AMD EPYC\nflags\t\t: fpu avx avx2 avx512f\n\n", "AMD EPYC (AVX-512)"),
        ("model name\t: Old\nflags\t\t: fpu\n", "Old"),
        ("processor\t: 0\nFeatures\t: asimd\n", platform.processor() or platform.machine()),
    ],
)
def test_processors_of_one_name_are_told_apart_by_their_vectors(monkeypatch, told, named):
    monkeypatch.setattr(processor.Path, "read_text", lambda path: told)
    assert processor.name.__wrapped__() == named


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ({"0": ("1", "32K"), "2": ("2", "1024K"), "3": ("3", "32768K")}, 32 << 20),
        ({"3": ("3", "8M")}, 8 << 20),
        ({"0": ("1", "32K")}, None),
        ({"3": ("3", "unknown")}, None),
        ({}, None),
    ],
)
def test_the_third_level_cache_is_read_from_the_system(monkeypatch, tmp_path, levels, expected):
    for index, (level, size) in levels.items():
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        (folder / "level").write_text(f"{level}\n")
        (folder / "size").write_text(f"{size}\n")
    monkeypatch.setattr(processor, "_CACHES", tmp_path)
    assert processor.shared_cache_bytes.__wrapped__() == expected
