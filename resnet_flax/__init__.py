"""Plain, residual and deeper networks in JAX/Flax: what happens as networks get deeper."""

__version__ = "0.1.0"
