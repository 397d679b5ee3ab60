"""Trains what a config names: the command of :mod:`resnet_flax.train`, in a checkout."""

import runpy

if __name__ == "__main__":
    runpy.run_module("resnet_flax.train", run_name="__main__", alter_sys=True)
