"""Trains a network from a config; runs :mod:`resnet_flax.train` from a checkout."""

import runpy

if __name__ == "__main__":
    runpy.run_module("resnet_flax.train", run_name="__main__", alter_sys=True)
