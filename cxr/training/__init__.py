"""Cached splits to a trained network: recipe, losses, loop, checkpoints, several processes.

Also what is fitted on the validation split once the training is over."""
