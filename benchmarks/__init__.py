"""Benchmarks of speed and memory; each module is a command that prints one table, beside a peer where there is one."""
