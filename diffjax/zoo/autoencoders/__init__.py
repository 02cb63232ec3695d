"""Auto-encoders without a likelihood."""
