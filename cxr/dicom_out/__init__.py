"""Answers as DICOM objects for a picture archive: what is read from the source, and the objects that join its study.

Uses highdicom and pydicom; knows nothing of command lines and HTTP.
"""
