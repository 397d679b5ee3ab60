"""The process around a command: other processes of the run, signals, output streams, progress, environment."""
