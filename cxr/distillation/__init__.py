"""A network that learns from other networks: teachers, their files, and the targets that they make of labels.

Owns what a teacher is; the training loop asks it between two batches, and nothing here is served or explained.
"""
