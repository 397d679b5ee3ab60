"""The parts of the report: runs and experiments gathered from folders, beside published numbers, on pages."""
