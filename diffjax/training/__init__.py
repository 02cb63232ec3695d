"""Training of any `Model`: state, step, devices, checkpoints and the loop around them."""
