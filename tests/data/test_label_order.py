"""Columns in any order and any bytes at all: properties, by hypothesis."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from label_files import HEADER, TEST, TRAIN, VAL, check

from cxr.data import labels as labels_module
from cxr.data.checks import check_splits


@pytest.mark.fault("C09")
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_permuted_columns_give_identical_labels(tmp_path, seed):
    generator = np.random.default_rng(seed)
    findings = [f"F{number}" for number in range(5)]
    frames = []
    for name in "abc":
        frame = pd.DataFrame(generator.integers(0, 2, (6, 5)), columns=findings)
        frame.insert(0, "Image", [f"{name}{row}.png" for row in range(6)])
        frame["Patientid"] = [f"{name}{row}" for row in range(6)]
        frames.append(frame)
    plain = check(tmp_path, *(frame.to_csv(index=False).encode() for frame in frames))
    shuffled = [frame[list(generator.permutation(frame.columns))] for frame in frames[1:]]
    permuted = check(tmp_path, *(frame.to_csv(index=False).encode() for frame in (frames[0], *shuffled)))
    assert permuted.fingerprint == plain.fingerprint
    for frame, split in zip(frames, permuted.splits.values(), strict=True):
        assert split.findings == tuple(findings)
        np.testing.assert_array_equal(split.labels, frame[findings].to_numpy(np.float32))


CELLS = [
    b"0",
    b"1",
    b",",
    b"\n",
    b'"',
    b"\r",
    b"-1",
    b"\xff",
    b"\0",
    b";",
    b"../",
    b"\x85",
    b"Image",
    b" ",
    b"\xe2\x80\xa8",
]


@st.composite
def edited_csv(draw) -> bytes:
    """Return a valid CSV with some random bytes put in, taken out or written over."""
    data = bytearray(draw(st.sampled_from([TRAIN, TRAIN * 3])))
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(data)))
        stop = start + draw(st.integers(0, 3))
        data[start:stop] = draw(st.one_of(st.sampled_from(CELLS), st.binary(max_size=3)))
    return bytes(data)


@pytest.mark.fault("C25")
@settings(max_examples=200, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=200), edited_csv(), st.text(max_size=100).map(str.encode)), st.integers(0, 2))
@example(b'"', 0)
@example(HEADER + b'"' + b"x" * 200_000 + b'",0,1,7\n', 0)  # longer than csv.field_size_limit
@example(HEADER + b"a" * 5000 + b"/b.png,0,1,7\n", 1)
def test_any_bytes_give_a_result(tmp_path, data, position):
    """Whatever a file holds, the check ends with a result whose text can be shown."""
    (tmp_path / "images").mkdir(exist_ok=True)
    files = [TRAIN, VAL, TEST]
    files[position] = data
    assert check(tmp_path, *files).exit_code in (0, 2)
    paths = [tmp_path / name for name in ("train-small.csv", "val_data.csv", "test_data.csv")]
    result = check_splits(*paths, tmp_path / "images", blank="unlabelled", uncertain="one")
    assert result.exit_code == 2  # no image is there
    assert "Data check:" in result.as_text()
    assert "\x1b" not in result.as_text()


@pytest.mark.fault("C25")
def test_mutation_a_reader_that_breaks_on_odd_bytes_is_noticed(tmp_path, monkeypatch):
    def break_down(data):
        if b'"' in data:
            raise KeyError("a quote")
        return iter([])

    monkeypatch.setattr(labels_module, "records", break_down)
    with pytest.raises(KeyError):  # hypothesis lets the example's own error through
        test_any_bytes_give_a_result(tmp_path)
