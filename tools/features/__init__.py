"""Learning another network's features: the teacher and its weights, grey pictures and crops of them, the training."""
