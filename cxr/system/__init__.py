"""Files that are replaced whole or not at all, locks, the terminal and progress lines.

Knows nothing of pictures, labels or networks."""
