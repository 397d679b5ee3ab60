"""One page of everything that a folder holds, experiments and runs, beside the published numbers.

python -m experiments.report --workdir=runs/all [--output=FOLDER]

Writes report.html (one self-contained file) and report.md (figures as links) into the folder, or into --output. It
reads; of what the runs and the experiments left it changes nothing.
"""

from absl import flags

from resnet_flax import command
from resnet_flax.paths import expanded
from resnet_flax.reporting.report import write


def main() -> None:
    """Writes the report and prints where it is."""
    folder = expanded(flags.FLAGS.workdir)
    for path in write(folder, expanded(flags.FLAGS.output or folder)):
        print(path)


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Folder that holds experiments and runs, at any depth.")
    flags.DEFINE_string("output", None, "Folder of the report, by default the workdir.")
    flags.mark_flag_as_required("workdir")
    command.run(main)
