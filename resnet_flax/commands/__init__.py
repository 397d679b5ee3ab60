"""The commands' main functions. Their flags are defined in modules of the same names in the parent package.

The flags are parsed first, so that ``--help`` does not import jax.
"""
