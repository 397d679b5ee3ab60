"""The paper's experiments, each a declaration; and the commands that run all of them and report on them."""
