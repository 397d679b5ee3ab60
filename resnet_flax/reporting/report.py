"""Writes the report on a folder: report.html and report.md."""

import datetime
import sys
from pathlib import Path

from resnet_flax.atomic import write_atomically
from resnet_flax.errors import UserError
from resnet_flax.escaping import escape_hidden
from resnet_flax.reporting import gather, render, sections


def write(folder: Path, output: Path) -> tuple[Path, Path]:
    """Writes the report on a folder, and prints a warning to stderr for each thing that is missing.

    Args:
      folder: The folder that holds experiments and runs, at any depth.
      output: The folder for report.html and report.md. It is created if needed.

    Returns:
      The paths of report.html and report.md.

    Raises:
      UserError: The folder does not exist or holds nothing to report, or the output cannot be written.
    """
    gathered = gather.gather(folder)
    around = {output.resolve(), *output.resolve().parents}
    if output == folder and folder.resolve() in (run.path for run in gathered.runs):
        raise UserError(f"--workdir={folder} is a single run; give --output=FOLDER for its report")
    if any(run.path in around for run in gathered.runs):
        raise UserError(f"--output={output} is inside a run directory, where no report is written; choose another one")
    document = sections.document(gathered, datetime.datetime.now(datetime.UTC))
    for problem in sections.problems(document):
        print(f"warning: {escape_hidden(problem)}", file=sys.stderr)
    page, text = output / "report.html", output / "report.md"
    try:
        output.mkdir(parents=True, exist_ok=True)
        write_atomically(page, render.html(document))
        write_atomically(text, render.markdown(document, output))
    except OSError as error:
        raise UserError(f"--output={output}: cannot be written: {error.strerror}") from None
    return page, text
