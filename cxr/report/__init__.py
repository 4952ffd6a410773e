"""A trained network's test split to metrics.json, figures and report.html.

Numbers come from `metrics`; here they are collected, drawn and written down."""
