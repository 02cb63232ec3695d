"""Models with a latent code: variational auto-encoders and what is built on them."""
