"""CheXpert's label cells, which MIMIC-CXR-JPG has too: 1, 0, -1 (uncertain) and blank (not mentioned in the report)."""

import argparse

from tools.datasets.collection import ABSENT, PRESENT, UNLABELLED, PrepareError

# Irvin et al. 2019, "CheXpert: a large chest radiograph dataset with uncertainty labels", table 1.
FINDINGS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation",
    "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
BLANK_MEANINGS = {"zero": ABSENT, "unlabelled": UNLABELLED}
UNCERTAIN_MEANINGS = {"zero": ABSENT, "one": PRESENT, "unlabelled": UNLABELLED}


def add_label_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the two choices that CheXpert's labels need."""
    parser.add_argument(
        "--blank",
        choices=BLANK_MEANINGS,
        default="zero",
        help="a blank cell means that the report does not mention the finding: absent, or left out of loss and metrics "
        "(default: zero)",
    )
    parser.add_argument(
        "--uncertain",
        choices=UNCERTAIN_MEANINGS,
        default="unlabelled",
        help="what -1 (the report is not sure) is taken for (default: unlabelled, left out of loss and metrics)",
    )


class LabelReader:
    """Turn label cells into ABSENT, PRESENT or UNLABELLED, and count the two that had to be given a meaning."""

    def __init__(self, blank: str, uncertain: str) -> None:
        self.blank, self.uncertain = blank, uncertain
        self.meanings = {"": BLANK_MEANINGS[blank], "0": ABSENT, "0.0": ABSENT, "1": PRESENT, "1.0": PRESENT}
        self.meanings |= dict.fromkeys(("-1", "-1.0"), UNCERTAIN_MEANINGS[uncertain])
        self.num_blank = self.num_uncertain = 0

    def read(self, cells: list[str], where: str) -> list[int]:
        """Return the labels of stripped cells.

        Raises: PrepareError naming `where` for a cell that is none of CheXpert's.
        """
        try:
            labels = [self.meanings[cell] for cell in cells]
        except KeyError as error:
            raise PrepareError(f"{where}: expected 1, 0, -1 or a blank label, received {error}.") from error
        self.num_blank += cells.count("")
        self.num_uncertain += sum(cell.startswith("-") for cell in cells)
        return labels

    def notes(self) -> list[str]:
        """Say how many labels were given which meaning."""
        found = (("blank", self.num_blank, self.blank), ("uncertain (-1)", self.num_uncertain, self.uncertain))
        return [f"{number:,} {what} labels taken as {meaning}" for what, number, meaning in found if number]
