"""Where an experiment's runs run: here, one after the other, or on a Ray cluster."""
