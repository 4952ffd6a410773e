"""Grad-CAM and its pictures: heatmap, colour map, overlay, panel.

Knows features and weights as arrays, no network."""
