"""Models known up to a constant: Boltzmann machines, restricted, stacked and deep."""
