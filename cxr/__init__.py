"""Multi-label chest X-ray classification: data, network, metrics and report.

The modules here know nothing of the scripts, of Flask or of the command line.
"""
