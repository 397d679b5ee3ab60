"""The work of the commands; each has a file beside this folder, with its flags, which are parsed first."""
