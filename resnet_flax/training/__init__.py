"""Training: state, step, learning-rate schedule, loop, evaluation and metrics.

Read ``step.py`` first: ``training_step`` is the update. Then ``state.py``, ``recipe.py``, ``executor.py`` (compiles and
calls the step), ``loop.py`` (decides when to log, evaluate and save) and ``run.py`` (restores, saves, stops). The loop
calls ``TrainingRun.advance``, which calls ``Executor.advance``, which calls ``TrainSteps``: a compiled loop, which
computes ``training_step`` for each step.
"""
