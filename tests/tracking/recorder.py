"""A tracker for tests. It records all lines and, like Weights & Biases, cannot replace one."""

OPENED = []  # the TrackedRun of each start
HELD = {}  # for each run's id, its lines by step
FAULT = {}  # for the name of a function, another one that it calls first


def open(run):
    FAULT.get("open", lambda: None)()
    OPENED.append(run)
    held = HELD.setdefault(run.id, {})
    if run.ended and held.keys() == {line["step"] for line in run.lines}:
        return None
    tracker = Recorder(held)
    tracker.write(run.lines)
    return tracker


class Recorder:
    def __init__(self, held):
        self.held = held

    def write(self, lines):
        FAULT.get("write", lambda: None)()
        for line in lines:
            self.held.setdefault(line["step"], line)

    def close(self):
        FAULT.get("close", lambda: None)()
