"""Launchers of an experiment's runs: here, one after the other, or on a Ray cluster."""
