"""Networks in flax.linen. They import no mathematics: `predictions` says what their output means."""
