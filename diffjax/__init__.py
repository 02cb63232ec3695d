"""diffjax: diffusion, score-based and variational latent-variable models as pure functions."""
