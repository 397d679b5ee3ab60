"""The surroundings of a command on its machine: processes, signals, streams, progress and the environment."""
