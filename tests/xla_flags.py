"""Flags with which XLA compiles the tests' programs in a fourth of the time; what they compute takes longer."""

from importlib import metadata

# Old emitters instead of those that go through MLIR, which take twice as long; jaxlib 0.12 has no such flag.
_EMITTERS = " --xla_cpu_use_fusion_emitters=false" if metadata.version("jaxlib").startswith("0.10.") else ""
QUICK = f"--xla_backend_optimization_level=0{_EMITTERS}"  # LLVM leaves programs as they are
# For whole runs in float64, whose convolutions are loops that LLVM has to make fast.
QUICK_FLOAT64 = f"--xla_backend_optimization_level=1{_EMITTERS}"
