"""Where the lungs and the heart are: the outlines of one radiograph, and the small network that finds them.

Owns that network, its file, and whether its outlines are to be believed; not what they mean for a finding.
"""
