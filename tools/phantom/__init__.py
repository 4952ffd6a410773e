"""A digital chest phantom: anatomy, findings and X-ray physics that yield radiographs whose truth is known.

Lengths are millimetres in the patient's frontal plane: x grows to the patient's left (the image's right), y grows
downwards from the lung apices. Every organ is a map of path lengths along the beam, in millimetres.
"""
