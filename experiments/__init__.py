"""The experiments of this project, each in a module, and the commands that run all of them and report on them."""
