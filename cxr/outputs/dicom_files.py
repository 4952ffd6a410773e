"""DICOM objects of each answer for a picture archive, in a folder of their own."""

from functools import partial
from pathlib import Path

from cxr.dicom_out.instance import Answer, referenced_instances
from cxr.dicom_out.objects import dicom_objects
from cxr.dicom_out.source import Source, SourceError, read_source
from cxr.heatmaps.explanation import Explanation
from cxr.imaging.radiograph import DecodedPicture, ImageError, read_file
from cxr.inference.picture_files import OutputNames
from cxr.network.model_info import ModelInfo
from cxr.outputs.answer_writer import WithoutEnd, claim_beside, write_whole


class DicomFiles(WithoutEnd):
    """Writes `<picture>-<object>.dcm` for radiographs that are DICOM files with identifiers, and says why not else."""

    def __init__(self, outputs: OutputNames, info: ModelInfo) -> None:
        self._outputs, self._info = outputs, info

    def add(self, name: str, file: Path, picture: DecodedPicture, answer: Explanation) -> list[str]:
        """Write the objects of one radiograph; return a line for each and for what stays, or why there is none."""
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
            path, kept = claim_beside(self._outputs, partial(_is_of_another, source), name, what, ".dcm")
            write_whole(path, data)
            lines += [*kept, f"DICOM {what} -> {path}"]
        return lines


def _is_of_another(source: Source, path: Path) -> bool:
    """Say whether a file refers to another instance than the source's, or is no DICOM object that refers to one."""
    return source.header.SOPInstanceUID not in referenced_instances(path.read_bytes())
