"""Files that are replaced whole or not at all, CSV text, names of files, locks, the terminal, descriptors, the log and
freed memory.

Knows nothing of pictures, labels or networks."""
