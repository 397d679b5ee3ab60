"""The Trackio tracker: writes to a database on this machine, which ``trackio show --project resnet_flax`` shows."""

import datetime
from collections.abc import Sequence

from trackio.sqlite_storage import SQLiteStorage

from resnet_flax.tracking.tracker import PROJECT, Line, TrackedRun, finite_metrics


def open(run: TrackedRun) -> "Metrics | None":
    """Replaces the lines of the run in the database by the given ones."""
    held = {line["step"]: line["timestamp"] for line in SQLiteStorage.get_logs(PROJECT, run.name, run_id=run.id)}
    if run.ended and held.keys() == {line["step"] for line in run.lines}:
        return None
    metrics = Metrics(run)
    SQLiteStorage.delete_run(PROJECT, run.name, run_id=run.id)
    metrics.write(run.lines, held)
    return metrics


class Metrics:
    """Writes lines of metrics as rows of Trackio's database.

    It does not use Trackio's client, which prints to standard output, gives a run a new id at each start, and cannot
    replace lines.
    """

    def __init__(self, run: TrackedRun) -> None:
        self._name, self._id = run.name, run.id
        self._config = dict(run.config) | {"_Group": run.group or None}

    def write(self, lines: Sequence[Line], times: dict[int, str] | None = None) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat()
        SQLiteStorage.bulk_log(
            project=PROJECT,
            run=self._name,
            run_id=self._id,
            metrics_list=[finite_metrics(line) for line in lines],
            steps=[line["step"] for line in lines],
            timestamps=[(times or {}).get(line["step"], now) for line in lines],
            log_ids=[f"{self._id}-{line['step']}" for line in lines],
            config=self._config,
        )

    def close(self) -> None:
        pass
