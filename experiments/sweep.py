r"""Any grid over config keys: error against one key, a line for each value of the others.

python -m experiments.sweep --config=configs/digits.py:plain-20 --workdir=runs/decay --seeds=0..2 \
    --grid model.depth=8..32:12 --grid optimizer.weight_decay=1e-5,1e-4,1e-3,1e-2 --x=optimizer.weight_decay

Every --grid names a config key and its values, as a list or, of whole numbers, a range with both ends (8..56:6); keys
that change together are named together (model.depth,optimizer.learning_rate=20:0.1,56:0.05). All combinations are run,
with every seed. The rest of the network is that of --config=FILE:NAME. --x is the key on the horizontal axis, which is
logarithmic where its values span a factor of 16; --lines are the keys that tell the lines apart.

One learning rate for all depths says as much of the rate as of the depth. --best-over chooses each case's own:

python -m experiments.sweep --config=configs/digits.py --config.data.validation=144 --workdir=runs/best --seeds=0..2 \
    --grid model.depth=8,20,56 --grid model.unit=plain,residual \
    --grid optimizer.learning_rate=0.001,0.005,0.02 --best-over=optimizer.learning_rate

runs every value with the first seed (or --choose-seeds), chooses by the error on images set aside from training
(data.validation), and runs the chosen value with all seeds. The table reports test errors of the chosen; choices.csv
says what was chosen of what, and which choices lie at an end of the grid. Rates and decays are arguments of the
compiled step, so that trying them compiles once.

runs.csv has a row for each run and seed, with raw numbers. A sweep that is stopped draws what there is; --draw does so
while it runs, or after it was killed.
"""

from resnet_flax.sweeps import grid_sweep

EXPERIMENT = grid_sweep.experiment(
    title="A sweep",
    question="How do the errors change over the grid {grid}?",
    published=("cifar10_table6",),
)

if __name__ == "__main__":
    EXPERIMENT.run()
