"""A generator against a discriminator."""
