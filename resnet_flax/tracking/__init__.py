"""Trackers show a run's metrics during training. They get copies of the lines of metrics.jsonl, which is authoritative.

A tracker is a module with a function ``open`` (``tracker.py`` has the interface) and a row of ``table.py``.
"""
