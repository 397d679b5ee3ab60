"""Speed and memory, measured beside a peer in the same run; each module is a command that prints one table."""
