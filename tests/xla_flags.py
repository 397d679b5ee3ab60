"""Flags with which XLA compiles the tests' programs in a fourth of the time; what they compute takes longer."""

from importlib import metadata

# Old emitters instead of those that go through MLIR, which take twice as long; jaxlib 0.12 has no such flag.
_EMITTERS = " --xla_cpu_use_fusion_emitters=false" if metadata.version("jaxlib").startswith("0.10.") else ""
# In one piece: each piece costs, and other tests use the other cores.
_WHOLE = " --xla_cpu_parallel_codegen_split_count=1"
QUICK = f"--xla_backend_optimization_level=0{_WHOLE}{_EMITTERS}"  # LLVM leaves programs as they are
