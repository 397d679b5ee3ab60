"""The state of every run in a folder: step, images a second, time left, errors, host.

python -m experiments.status --workdir=runs/all [--watch]

It reads what the runs have written, while they train and afterwards, and changes nothing. With --watch the table is
shown anew every few seconds, until all runs have ended, or until Ctrl-C.
"""

from absl import flags

from resnet_flax import command

flags.DEFINE_string("workdir", None, "Folder that holds experiments and runs, at any depth.")
flags.DEFINE_bool("watch", False, "Show the table anew until all runs have ended.")
flags.DEFINE_float("every", 5.0, "Seconds between two tables.", lower_bound=0.1)
flags.mark_flag_as_required("workdir")

if __name__ == "__main__":
    command.run("resnet_flax.commands.status", ends_with_reader=True)
