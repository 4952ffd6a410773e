"""The decoder in child processes: what one file may take of time and memory is bounded, and its faults stay its own.

The decoder itself is cxr.imaging.radiograph."""
