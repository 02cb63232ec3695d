"""Networks in flax.linen. They import no mathematics: what their output means is said elsewhere, in `predictions`."""
