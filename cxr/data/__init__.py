"""The training data: CSV schema, data check, boxes, cache of decoded images, augmented batches.

A split leaves this package checked; faults of the data are listed all at once, with file, line and column."""
