"""Three small CSVs and the check of them."""

from pathlib import Path

from cxr.data.checks import DataCheck, check_splits

TRAIN = b"Image,Edema,Hernia,Patientid\na1.png,0,1,7\na2.png,1,0,007\n"


VAL = b"Image,Edema,Hernia,Patientid\nb1.png,1,0,20\nb2.png,0,1,21\n"


TEST = b"Image,Edema,Hernia,Patientid\nc1.png,0,1,30\nc2.png,1,0,31\n"


HEADER = b"Image,Edema,Hernia,Patientid\n"


LABELS = [[0, 1], [1, 0]]


def check(folder: Path, train: bytes = TRAIN, val: bytes = VAL, test: bytes = TEST, **options) -> DataCheck:
    """Write three CSVs and check them without images."""
    paths = [folder / name for name in ("train-small.csv", "val_data.csv", "test_data.csv")]
    for path, data in zip(paths, (train, val, test), strict=True):
        path.write_bytes(data)
    return check_splits(*paths, None, **options)
