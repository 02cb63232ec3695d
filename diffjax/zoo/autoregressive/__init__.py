"""Models whose probability is a product of conditionals, one place after the other."""
