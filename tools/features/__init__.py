"""Learning another network's features: grey pictures and crops of them, the training."""
