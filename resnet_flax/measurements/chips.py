"""Accelerators for which a training step can be compiled on a CPU, with their published rates."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Chip:
    """A kind of accelerator. Its rates are peak rates per device from its maker, which no program exceeds.

    Attributes:
      name: Its name in a target, such as ``h100`` in ``h100:8``.
      extra: The extra of this project that installs the compiler.
      flops: Operations per second, by the type of the computation (``model.dtype``) as jax executes it by default.
      memory: Bytes that a program can use, as the compiler or jax limits them.
      memory_bandwidth: Bytes per second.
      on_chip: Bytes of the cache or the on-chip memory, whose arrays cause no memory traffic.
      link_bandwidth: Bytes per second in one direction; over all links of a device together, or over each link if
        ``mesh`` is true.
      launch_seconds: Least seconds between the launches of two kernels; 0 if the device launches them itself.
      mesh: Whether each device is linked to its neighbours in a mesh, instead of all to a switch that sums what it
        passes on.
      whole_ring: Number of devices from which an axis of the mesh is closed to a ring.
      source: The publications that give the numbers.
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
        """Returns the least time for summing an array over all devices, after which each device has the sum.

        With a switch that sums, each device sends its array once. In a mesh, each part of the array passes through all
        devices but one for the sum, and again for its distribution (Patarasuk and Yuan 2009), using all links at once.

        Args:
          size: Bytes of the array on each device.
          sides: Number of devices along each axis of the mesh.
        """
        devices = 1
        for side in sides:
            devices *= side
        if devices == 1:
            return 0.0
        if not self.mesh:
            return size / self.link_bandwidth
        # Links, counted per direction: a line of n devices has 2 (n - 1), a ring 2 n.
        links = sum(devices // n * 2 * (n if n >= self.whole_ring else n - 1) for n in sides)
        return 2 * (devices - 1) * size / (links * self.link_bandwidth)


_H100 = Chip(
    name="h100",
    extra="cuda13",
    # NVIDIA H100 Tensor Core GPU Architecture (white paper), H100 SXM5, without sparsity. jax computes float32 in TF32.
    flops={"bfloat16": 989.4e12, "float16": 989.4e12, "float32": 494.7e12, "float64": 66.9e12},
    # The device has 84.9 GB, of which jax uses three quarters unless XLA_PYTHON_CLIENT_MEM_FRACTION sets another part.
    memory=0.75 * 84_942_979_072,
    memory_bandwidth=3.35e12,
    on_chip=50 * 2**20,  # the second-level cache
    link_bandwidth=450e9,  # NVLink, 900 GB/s in both directions together; its switches sum (SHARP)
    launch_seconds=2e-6,  # not published: the least time of a GPU from one kernel to the next
    mesh=False,
    whole_ring=0,
    source="NVIDIA H100 Tensor Core GPU Architecture, Table 1; openxla/xla, gpu specs, h100_sxm.txtpb",
)
_V5E = Chip(
    name="v5e",
    extra="tpu",
    # cloud.google.com/tpu/docs/v5e: 197 TFLOP/s in bfloat16, in which jax multiplies float32 by default, too.
    flops={"bfloat16": 197e12, "float32": 197e12},
    memory=15.75 * 2**30,  # the part of its 16 GiB that the compiler gives to a program
    memory_bandwidth=819e9,
    on_chip=128 * 2**20,  # "VMEM": jax-ml.github.io/scaling-book, part 2
    link_bandwidth=50e9,  # four links of 400 Gbit/s
    launch_seconds=0.0,
    mesh=True,
    whole_ring=16,
    source="cloud.google.com/tpu/docs/v5e; jax-ml.github.io/scaling-book",
)
CHIPS: dict[str, Chip] = {chip.name: chip for chip in (_H100, _V5E)}

# The device properties that XLA's compiler for NVIDIA GPUs needs without a device: openxla/xla, h100_sxm.txtpb.
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
