"""The commands' main functions. Their flags are defined in the modules that users run.

These have the same names in the parent package; that of ``status`` is ``experiments.status``, and ``preflight_target``
is a part of ``preflight``. The flags are parsed first, so that ``--help`` does not import jax.
"""
