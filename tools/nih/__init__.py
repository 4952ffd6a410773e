"""From NIH's own files to this project's three CSVs and a folder of images."""
