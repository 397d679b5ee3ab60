"""What the report is made of: runs and experiments gathered from folders, beside published numbers, on pages."""
