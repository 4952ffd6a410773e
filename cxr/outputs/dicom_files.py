"""DICOM objects of each answer for a picture archive, in a folder of their own."""

from pathlib import Path

from cxr.dicom_out.instance import Answer
from cxr.dicom_out.objects import dicom_objects
from cxr.dicom_out.source import SourceError, read_source
from cxr.imaging.radiograph import DecodedPicture, ImageError, read_file
from cxr.inference.explanation import Explanation
from cxr.inference.picture_files import OutputNames
from cxr.network.model_info import ModelInfo
from cxr.outputs.answer_writer import WithoutEnd, write_whole


class DicomFiles(WithoutEnd):
    """Writes `<picture>-<object>.dcm` for radiographs that are DICOM files with identifiers, and says why not else."""

    def __init__(self, outputs: OutputNames, info: ModelInfo) -> None:
        self._outputs, self._info = outputs, info

    def add(self, name: str, file: Path, picture: DecodedPicture, answer: Explanation) -> list[str]:
        """Write the objects of one radiograph; return a line for each, or one that says why there are none."""
        try:
            source = read_source(read_file(file))
            source.require_shape(*picture.radiograph.shape)
        except (ImageError, SourceError) as error:
            return [f"No DICOM results: {error}"]
        except OSError as error:  # it was there when its picture was read
            return [f"No DICOM results: the file cannot be read again: {error.strerror}."]
        objects = dicom_objects(Answer(source, self._info, answer, picture.notices), picture.radiograph)
        lines = []
        for what, data in objects.items():
            path = self._outputs.claim(name, what, ".dcm")
            write_whole(path, data)
            lines.append(f"DICOM {what} -> {path}")
        return lines
