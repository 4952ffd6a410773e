"""Labels and probabilities to numbers: AUROC, thresholds, calibration, localisation against boxes.

NumPy, SciPy and scikit-learn only; what is undefined is NaN."""
