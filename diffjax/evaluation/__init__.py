"""What a trained model is worth, measured on held-out data."""
