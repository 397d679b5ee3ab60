r"""Sweeps over any grid of config keys, and draws the error against one key with a line for each value of the others.

python -m experiments.sweep --config=configs/digits.py:plain-20 --workdir=runs/decay --seeds=0..2 \
    --grid model.depth=8..32:12 --grid optimizer.weight_decay=1e-5,1e-4,1e-3,1e-2 --x=optimizer.weight_decay

Every --grid names a config key and its values: a list or, for whole numbers, a range with both ends (8..56:6). Keys
that change together share a --grid (model.depth,optimizer.learning_rate=20:0.1,56:0.05). All combinations are trained
with every seed. --config=FILE:NAME sets the rest of the network. --x is the key on the horizontal axis, which is
logarithmic if its values span a factor of 16. --lines are the keys that tell the lines apart.

With one learning rate for all depths, errors depend as much on the rate as on the depth. --best-over chooses the best
rate for each network:

python -m experiments.sweep --config=configs/digits.py --config.data.validation=144 --workdir=runs/best --seeds=0..2 \
    --grid model.depth=8,20,56 --grid model.unit=plain,residual \
    --grid optimizer.learning_rate=0.001,0.005,0.02 --best-over=optimizer.learning_rate

This trains every value with the first seed (or --choose-seeds), chooses by the error on images set aside from
training (data.validation), and trains the chosen value with all seeds. The table reports the test errors of the
chosen values. choices.csv lists the values, the choices, and which choices lie at an end of the grid. Learning rates
and weight decays are arguments of the compiled step, so trying several of them compiles once.

runs.csv has a row for each run, with raw numbers. A sweep that is stopped draws the results so far. --draw does the
same during training, or after a sweep was killed.
"""

from resnet_flax.sweeps import grid_sweep

EXPERIMENT = grid_sweep.experiment(
    title="A sweep",
    question="How do the errors change over the grid {grid}?",
    published=("cifar10_table6",),
)

if __name__ == "__main__":
    EXPERIMENT.run()
