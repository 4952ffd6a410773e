"""The one decoder: PNG, JPEG and DICOM bytes to a radiograph, and a radiograph to the model's input.

Every refusal of a picture is an ImageError with a code."""
