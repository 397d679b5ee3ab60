"""Shows the state of every run in a folder: step, images per second, time left, errors, host.

python -m experiments.status runs/all [--watch]

The command reads the files of the runs, during training and afterwards, and changes nothing. With --watch, it updates
the table every few seconds until all runs have ended, or until Ctrl-C.
"""

from absl import flags

from resnet_flax import command

flags.DEFINE_string("workdir", None, "Folder that holds experiments and runs, at any depth; also without the flag.")
flags.DEFINE_bool("watch", False, "Update the table until all runs have ended.")
flags.DEFINE_float("every", 5.0, "Seconds between updates of the table.", lower_bound=0.1)

if __name__ == "__main__":
    command.run("resnet_flax.commands.status", arguments=True, ends_with_reader=True)
