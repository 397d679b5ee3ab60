"""Tables and reports: results of runs and experiments, read from their folders and compared with published numbers."""
