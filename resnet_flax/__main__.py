"""``python -m resnet_flax COMMAND ...``: see :mod:`resnet_flax.main`."""

from resnet_flax.main import main

if __name__ == "__main__":
    main()
