"""Energy models: p(x) = exp(-E(x))/Z, with networks as energies."""
