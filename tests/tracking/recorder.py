"""A tracker for tests: keeps what it is told, and like Weights & Biases takes no line back."""

OPENED = []  # a TrackedRun a start
HELD = {}  # lines by step, by the id of the run
FAULT = {}  # name of a function -> what it calls first


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
