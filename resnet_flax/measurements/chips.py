"""Accelerators that a training step can be compiled for without having one, and their published rates."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Chip:
    """One kind of accelerator. Rates are a device's, by its maker's data sheet: no program exceeds them.

    Attributes:
      name: in a target, such as ``h100`` in ``h100:8``.
      extra: the extra of this project that installs its compiler.
      flops: operations a second by the type of the computation (``model.dtype``), as jax computes it by default.
      memory: bytes that a program can use, as its compiler counts them or jax sets them aside.
      memory_bandwidth: bytes a second.
      on_chip: bytes of the cache, or of the memory beside the arithmetic: arrays in them move nothing.
      link_bandwidth: bytes a second in one direction, over all links of a device or, where ``mesh`` is, over each.
      launch_seconds: between the starts of two kernels; 0 where a device starts them itself.
      mesh: whether devices are linked to their neighbours in a mesh, not through a switch that reduces what it passes.
      whole_ring: devices of an axis of the mesh that is closed to a ring.
      source: where the numbers are published.
    """

    name: str
    extra: str
    flops: Mapping[str, float]
    memory: float
    memory_bandwidth: float
    on_chip: float
    link_bandwidth: float
    launch_seconds: float
    mesh: bool
    whole_ring: int
    source: str

    def all_reduce_seconds(self, size: float, sides: tuple[int, ...]) -> float:
        """The least time in which devices can add up arrays of that many bytes, and all of them have the sum.

        Behind a switch that adds, each device sends its array once. In a mesh each part of it is passed on by all
        devices but one to be added, and again to be known (Patarasuk and Yuan 2009), over all links together.

        Args:
          sides: of the mesh of devices.
        """
        devices = 1
        for side in sides:
            devices *= side
        if devices == 1:
            return 0.0
        if not self.mesh:
            return size / self.link_bandwidth
        # Links in one direction: on a line of n devices 2 (n - 1), on a ring 2 n.
        links = sum(devices // n * 2 * (n if n >= self.whole_ring else n - 1) for n in sides)
        return 2 * (devices - 1) * size / (links * self.link_bandwidth)


_H100 = Chip(
    name="h100",
    extra="cuda13",
    # NVIDIA H100 Tensor Core GPU Architecture (white paper), H100 SXM5, without sparsity; jax computes float32 as TF32.
    flops={"bfloat16": 989.4e12, "float16": 989.4e12, "float32": 494.7e12, "float64": 66.9e12},
    # 84.9 GB, of which jax takes three quarters unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise.
    memory=0.75 * 84_942_979_072,
    memory_bandwidth=3.35e12,
    on_chip=50 * 2**20,  # the second-level cache
    link_bandwidth=450e9,  # NVLink, 900 GB/s in both directions; its switches add (SHARP)
    launch_seconds=2e-6,  # not published: what a GPU takes from one kernel to the next at best
    mesh=False,
    whole_ring=0,
    source="NVIDIA H100 Tensor Core GPU Architecture, Table 1; openxla/xla, gpu specs, h100_sxm.txtpb",
)
_V5E = Chip(
    name="v5e",
    extra="tpu",
    # cloud.google.com/tpu/docs/v5e: 197 TFLOP/s in bfloat16, in which jax multiplies float32 as well by default.
    flops={"bfloat16": 197e12, "float32": 197e12},
    memory=15.75 * 2**30,  # of 16 GiB, what its compiler gives to a program
    memory_bandwidth=819e9,
    on_chip=128 * 2**20,  # "VMEM": jax-ml.github.io/scaling-book, part 2
    link_bandwidth=50e9,  # four links of 400 Gbit/s
    launch_seconds=0.0,
    mesh=True,
    whole_ring=16,
    source="cloud.google.com/tpu/docs/v5e; jax-ml.github.io/scaling-book",
)
CHIPS: dict[str, Chip] = {chip.name: chip for chip in (_H100, _V5E)}

# What XLA's compiler for NVIDIA GPUs asks of a device that is not here: openxla/xla, gpu specs, h100_sxm.txtpb.
H100_CONFIG = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98 device_memory_size: 84942979072
  cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
runtime_version { major: 13 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
