"""Posteriors over parameters, by Markov chains and by black-box inference."""
