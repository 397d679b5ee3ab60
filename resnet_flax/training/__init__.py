"""How a network learns: state, step, schedule, loop, checkpoints, metrics."""
