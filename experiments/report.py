"""One page of everything that a folder holds, experiments and runs, beside the published numbers.

python -m experiments.report --workdir=runs/all [--output=FOLDER]

Writes report.html (one self-contained file) and report.md (figures as links) into the folder, or into --output. It
reads; of what the runs and the experiments left it changes nothing.
"""

import datetime
import sys
from pathlib import Path

from absl import flags

from resnet_flax import command
from resnet_flax.atomic import write_atomically
from resnet_flax.errors import UserError
from resnet_flax.paths import expanded
from resnet_flax.reporting import gather, render, sections
from resnet_flax.visible import visible


def write(folder: Path, output: Path) -> tuple[Path, Path]:
    """Writes the report on a folder; says on stderr what is missing.

    Args:
      folder: holds experiments and runs, at any depth.
      output: where report.html and report.md go; made where it is not there.

    Returns:
      The paths of the two.

    Raises:
      UserError: the folder is not there or holds nothing to report, or the output cannot be written to.
    """
    gathered = gather.gather(folder)
    around = {output.resolve(), *output.resolve().parents}
    if any(run.path in around for run in gathered.runs):
        raise UserError(f"--output={output} lies in a run's folder, which is left as it is; choose another --output")
    document = sections.document(gathered, datetime.datetime.now(datetime.UTC))
    for problem in sections.problems(document):
        print(f"warning: {visible(problem)}", file=sys.stderr)
    page, text = output / "report.html", output / "report.md"
    try:
        output.mkdir(parents=True, exist_ok=True)
        write_atomically(page, render.html(document))
        write_atomically(text, render.markdown(document, output))
    except OSError as error:
        raise UserError(f"--output={output}: cannot be written: {error.strerror}") from None
    return page, text


def main() -> None:
    """Writes the report and prints where it is."""
    folder = expanded(flags.FLAGS.workdir)
    for path in write(folder, expanded(flags.FLAGS.output or folder)):
        print(path)


if __name__ == "__main__":
    # Here, not above: experiments that call write() have a --workdir of their own.
    flags.DEFINE_string("workdir", None, "Folder that holds experiments and runs, at any depth.")
    flags.DEFINE_string("output", None, "Folder of the report, by default the workdir.")
    flags.mark_flag_as_required("workdir")
    command.run(main)
