"""Published data sets, one module each, and what they share: reading tables, splitting by patient, writing the CSVs."""
