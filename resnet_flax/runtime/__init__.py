"""What keeps a command alive on its machine: processes, signals, streams, progress and the environment."""
