"""Data sets, and the way of their images from files to batches on the devices.

:mod:`.datasets` is the entry: the registry, and :func:`.datasets.load`. It calls the modules that find or read images:
:mod:`.loaders` (into memory), :mod:`.photograph_sets` (photographs on disk), :mod:`.folders`, :mod:`.archives`,
:mod:`.tfds_sets`. A loaded data set has an ``access`` (:mod:`.access`), which hides whether its images lie in memory or
on disk. For a run, the access makes a supply (:mod:`.device_arrays`), which puts images on the devices; for photographs
on disk, :mod:`.streaming` decodes them. :mod:`.layouts` finds a step's batch in the arrays, and :mod:`.transforms`
normalises and augments it.
"""
