"""What a network shows: counts, and later gradients and layer responses."""
