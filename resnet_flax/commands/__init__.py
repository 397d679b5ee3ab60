"""What the commands do, once their flags are parsed; each is a file beside this folder, with its flags."""
