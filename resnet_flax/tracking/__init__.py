"""Trackers: programs that show a run's metrics while it trains. metrics.jsonl is the truth; they get copies of it.

One tracker is one module with a function ``open`` (``tracker.py`` has its interface) and one row of ``table.py``.
"""
