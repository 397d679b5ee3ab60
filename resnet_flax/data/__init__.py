"""Where images come from, ready for a step."""
