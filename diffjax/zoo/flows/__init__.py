"""Normalizing flows, as densities of data and of energies."""
