"""What the outline network learns from: pictures with outlines, changed at random."""
