"""Soft labels: blended by image name, and every bad table told in one line."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from cxr.data.boxes import Box, BoxError
from cxr.data.labels import Split
from cxr.data.problems import LabelError
from cxr.training.targets import blend_soft_labels, training_targets

LABELS = np.array([[1, 0], [0, np.nan], [0, 1]], np.float32)
SPLIT = Split("train", ("a.png", "b.png", "c.png"), ("1", "2", "3"), LABELS, ("Mass", "Pleural_Thickening"))


def table(tmp_path, text):
    path = tmp_path / "soft.csv"
    path.write_text(text)
    return path


def test_named_images_get_half_of_each_and_the_others_keep_their_labels(tmp_path):
    path = table(tmp_path, "Image,pleural thickening,Other,Mass\nb.png,0.5,7,0.25\na.png,0.1,7,0.9\nz.png,0,0,0\n")
    blended, num_named = blend_soft_labels(path, SPLIT)

    assert_allclose(blended, [[0.95, 0.05], [0.125, np.nan], [0, 1]], rtol=1e-6)
    assert num_named == 2
    assert LABELS[0, 0] == 1  # the split's own labels are what the model is judged by


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Image,Mass\na.png,0.5\n", "missing column Pleural_Thickening"),
        ("Mass,Pleural_Thickening\n0.5,0.5\n", "missing column Image"),
        ("", "missing column Image"),
        ("Image,Mass,Pleural_Thickening\na.png,1.5,0\n", "line 2: expected a probability from 0 to 1, received '1.5'"),
        ("Image,Mass,Pleural_Thickening\na.png,high,0\n", "received 'high'"),
        ("Image,Mass,Pleural_Thickening\na.png,nan,0\n", "received 'nan'"),
        ("Image,Mass,Pleural_Thickening\nx.png,0.5,0\n", "none of its images is in the train split"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_its_reason(tmp_path, text, message):
    with pytest.raises(LabelError, match=message):
        blend_soft_labels(table(tmp_path, text), SPLIT)


def test_nothing_is_collected_unless_asked_for():
    assert training_targets(SPLIT, [Box("a.png", "Mass", 0, 0, 1, 1)], 0.0, None) == (None, None)


def test_box_targets_are_collected_and_said(capsys):
    targets, soft = training_targets(SPLIT, [Box("a.png", "Mass", 0, 0, 1, 1)], 0.1, None)

    assert targets.num_pairs == 1
    assert soft is None
    assert "1 boxed findings in 1 training pictures" in capsys.readouterr().out


def test_a_box_weight_without_boxes_of_training_pictures_is_refused():
    with pytest.raises(BoxError, match="none of 1 boxes is of one"):
        training_targets(SPLIT, [Box("b.png", "Mass", 0, 0, 1, 1)], 0.1, None)
