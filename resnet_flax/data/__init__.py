"""Data sets, and how their images become batches on devices."""
