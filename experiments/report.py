"""Writes one page about all experiments and runs in a folder, compared with the published numbers.

python -m experiments.report --workdir=runs/all [--output=FOLDER]

The command writes report.html (one self-contained file) and report.md (with links to figures) into the workdir, or into
--output. It changes no files of runs and experiments.
"""

from absl import flags

from resnet_flax import command
from resnet_flax.paths import expanded
from resnet_flax.reporting.report import write


def main() -> None:
    """Writes the report and prints the paths of its files."""
    folder = expanded(flags.FLAGS.workdir)
    for path in write(folder, expanded(flags.FLAGS.output or folder)):
        print(path)


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Folder that holds experiments and runs, at any depth.")
    flags.DEFINE_string("output", None, "Folder for the report; by default the workdir.")
    flags.mark_flag_as_required("workdir")
    command.run(main)
