"""Launchers, which execute an experiment's runs: on this machine one after the other, or on a Ray cluster."""
