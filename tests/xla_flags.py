"""XLA flags that cut the compile time of the tests' programs to a fourth; the programs run slower."""

from importlib import metadata

# The new emitters, based on MLIR, take twice as long; jaxlib 0.12 cannot switch them off.
_EMITTERS = " --xla_cpu_use_fusion_emitters=false" if metadata.version("jaxlib").startswith("0.10.") else ""
# Splitting code generation has a cost, and the other cores are busy with other tests.
_WHOLE = " --xla_cpu_parallel_codegen_split_count=1"
QUICK = f"--xla_backend_optimization_level=0{_WHOLE}{_EMITTERS}"  # LLVM does not optimise
