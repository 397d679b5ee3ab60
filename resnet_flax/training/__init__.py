"""Training: state, step, learning-rate schedule, loop, evaluation and metrics."""
