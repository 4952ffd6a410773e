"""Grad-CAM, its pictures and what they say: heatmap, colour map, overlay, panel, places, the answer to one radiograph.

Knows features and weights as arrays, no network; whoever asks brings the model that predicts."""
