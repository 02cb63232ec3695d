"""Models known up to a constant: networks as energies; Boltzmann machines, restricted, stacked and deep."""
