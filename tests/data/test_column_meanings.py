"""What columns, ids and blanks mean: names that are no findings, row numbers, patients, contradictions."""

import numpy as np
import pytest
from tables import HEADER, check, messages, table

from cxr.data import columns
from cxr.data.leakage import patient_key
from cxr.data.problems import DataProblems
from cxr.data.vocabulary import is_no_finding, is_row_number

# Columns that are no findings


@pytest.mark.fault("C64")
@pytest.mark.parametrize(
    "name",
    ["Sex", "gender", "Patient Age", "PatientSex", "AP view", "View Position", "ViewPosition_DICOM", "Follow-up #",
     "follow_up", "FOLDS fold", "split", "is_train", "Unnamed: 3", "AP/PA", "Frontal/Lateral", "index", "StudyDate",
     "study_id", "isMale", "is_lateral", "M/F", "smoker_yes", "portable_xray", "In test", "test_set", "good_quality",
     "Reader 1", "has_box", "Monochrome1", "AccessionNumber", "sample_weight", "num_findings", "OriginalImage[Width",
     "Mortality_30d", "keep", "row_id"],
)  # fmt: skip
def test_names_that_are_no_findings(name):
    assert is_no_finding(name)


@pytest.mark.fault("C64")
@pytest.mark.parametrize(
    "name",
    ["Edema", "Pleural_Thickening", "No Finding", "Aortic enlargement", "Lung Opacity", "Support Devices",
     "Enlarged Cardiomediastinum", "Pneumothorax", "ILD", "Other lesion", "tracheal shift", "apical pleural thickening",
     "sequelae", "dual chamber device", "loss of volume", "pectum carinatum", "Fracture", "COVID-19", "TB", "Sextant",
     "Lateral rib fracture", "Boxy heart", "In situ tumour", "Device wire", "Smoking-related disease"],
)  # fmt: skip
def test_names_of_findings_are_findings(name):
    assert not is_no_finding(name)


@pytest.mark.fault("C64")
def test_such_columns_are_left_out_with_a_line_unless_chosen(tmp_path):
    train = "Image,Edema,Sex,Patient Age,Patientid\na1.png,0,1,50,11\na2.png,1,0,61,12\n"
    others = {"everywhere": lambda *which: table(*which, header=HEADER.replace("Hernia", "Sex"))}
    result = check(tmp_path, train, **others)
    assert result.exit_code == 0
    assert result.splits["train"].findings == ("Edema",)
    found = messages(result, "no finding")
    assert len(found) == 3
    assert "'Sex', 'Patient Age'" in found[0]
    assert "--findings" in found[0]
    chosen = check(tmp_path, train, **others, findings=["Edema", "Sex"])
    assert chosen.splits["train"].findings == ("Edema", "Sex")


@pytest.mark.fault("C64")
@pytest.mark.parametrize("name", ["", "Unnamed: 0", "Unnamed: 0.1", "unnamed_0"])
def test_row_numbers_are_dropped_with_a_line(tmp_path, name):
    result = check(tmp_path, f"{name},Image,Edema,Hernia,Patientid\n0,a1.png,0,1,11\n1,a2.png,1,0,12\n")
    assert result.exit_code == 0
    assert result.splits["train"].findings == ("Edema", "Hernia")
    assert len(messages(result, "row number")) == 1


def test_row_numbers_have_no_name_only_at_the_front():
    assert is_row_number("", 0)
    assert not is_row_number("", 1)
    assert not is_row_number("Unnamed mass", 0)


# Labels that exclude each other


@pytest.mark.fault("C65")
def test_no_finding_beside_a_finding_is_counted(tmp_path):
    header = "Image,{},Effusion,Support Devices,Patientid\n"
    rows = "a1.png,1,1,0,11\na2.png,0,1,0,12\na3.png,1,0,1,13\na4.png,1,0,0,14\na5.png,1,1,1,15\n"
    for name in ("No Finding", "no_finding", "Normal", "No-Finding", "Healthy", "no acute abnormality", "Normal study"):
        result = check(tmp_path, header.format(name) + rows)
        found = messages(result, "contradicting labels")
        assert len(found) == 1
        assert found[0].startswith("2 of 5 rows say \"No Finding\" and name a finding too ('Effusion'; lines 2, 6)")


@pytest.mark.fault("C65")
def test_blank_and_negative_labels_contradict_nothing(tmp_path):
    rows = "a1.png,1,,11\na2.png,,1,12\na3.png,0,0,13\n"
    result = check(tmp_path, "Image,No Finding,Effusion,Patientid\n" + rows, blank="unlabelled")
    assert messages(result, "contradicting labels") == []


# Patients


@pytest.mark.fault("C66")
@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("100", "100.0", True), ("100", "00000100", True), ("1e2", "100", True), ("1.0E+07", "10000000", True),
        ("P7 ", "p7", True), ("0", "000", True), ("12.50", "12.5", True), ("100", "1000", False), ("10", "1e2", False),
        ("P007", "P7", True), ("839860488694292331637988235681460987", "839860488694292331637988235681460988", False),
        ("100", "-100", False), ("1e", "1", False), ("\uff11\uff10", "10", True), ("P1\u200b", "P1", True),
        ("\ufeff100", "100", True), ("Zo\u00eb", "Zoe\u0308", True), ("PT-100", "PT_100", True),
        ("patient00012", "12", True), ("p10000032", "10000032", True), ("PT 100", "pt100", True),
        ("1,000", "1000", True), ("A100", "B100", False),
        ("1-23", "12-3", False), ("P10", "P1", False), ("A-01-7", "a1-7", True), ("1,23", "123", False),
    ],
)  # fmt: skip
def test_ids_are_compared_as_numbers(one, other, alike):
    assert (patient_key(one) == patient_key(other)) is alike


@pytest.mark.fault("C66")
def test_retyped_ids_across_files_are_a_warning_without_the_ids(tmp_path):
    train = HEADER + "a1.png,0,1,0021\na2.png,1,0,22.0\na3.png,1,0,22.0\na4.png,1,0,99\n"
    result = check(tmp_path, train)
    assert result.exit_code == 0
    found = messages(result, "retyped patients")
    assert len(found) == 1
    assert "stand in val.csv in another spelling" in found[0]
    assert ": 2 (lines 2 and 2; lines 3 and 3)" in found[0]
    assert "0021" not in found[0]
    assert result.splits["train"].patients == ("0021", "22.0", "22.0", "99")


@pytest.mark.fault("C67")
def test_table_without_patients_is_used_on_request_only(tmp_path):
    def without(letter, patient):
        return f"Image,Edema,Hernia\n{letter}1.png,0,1\n{letter}2.png,1,0\n"

    refused = check(tmp_path, everywhere=without)
    assert refused.exit_code == 2
    assert all("--allow no-patients" in problem.message for problem in refused.faults)
    allowed = check(tmp_path, everywhere=without, no_patients=True)
    assert allowed.exit_code == 0
    assert allowed.splits["val"].patients == ("b1.png", "b2.png")
    assert not allowed.patients_known
    assert "not known" in allowed.as_text()
    mixed = check(tmp_path, without("a", 1), no_patients=True)
    assert mixed.splits["val"].patients == ("21", "22")
    assert not mixed.patients_known
    assert check(tmp_path, no_patients=True).patients_known  # a table that names them is believed


# Choices


@pytest.mark.fault("C68")
def test_a_finding_with_a_comma_is_hinted_at(tmp_path):
    header = HEADER.replace("Hernia", '"Opacity, diffuse"')
    options = {"everywhere": lambda *which: table(*which, header=header)}
    assert check(tmp_path, **options, findings=["Opacity, diffuse"]).splits["val"].findings == ("Opacity, diffuse",)
    refused = check(tmp_path, **options, findings=["Opacity", "diffuse"])
    assert "--finding 'Opacity, diffuse'" in refused.faults[0].message


@pytest.mark.fault("C69")
@pytest.mark.parametrize("blank", ["", " ", "NA", "nan", "NULL", "n/a"])
def test_blank_means_what_the_user_says(tmp_path, blank):
    train = HEADER + f"a1.png,{blank},1,11\na2.png,1,0,12\n"
    faults = check(tmp_path, train).faults
    assert "--allow blank-zero" in faults[0].message
    for meaning, value in (("zero", 0), ("unlabelled", np.nan)):
        labels = check(tmp_path, train, blank=meaning).splits["train"].labels
        np.testing.assert_array_equal(labels, [[value, 1], [1, 0]])


@pytest.mark.fault("C69")
def test_one_class_because_of_blanks_names_the_other_meaning(tmp_path):
    train = HEADER + "a1.png,,1,11\na2.png,1,0,12\n"
    warnings = messages(check(tmp_path, train, blank="unlabelled"), "one class")
    assert [warning.split(". ")[1] for warning in warnings] == [
        "If a blank cell means absent, give --allow blank-zero."
    ]


@pytest.mark.fault("C69")
def test_where_keeps_rows_and_is_no_finding(tmp_path):
    def with_views(letter, patient):
        rows = (("1.png", 0, "Frontal", "PA"), ("2.png", 1, "Frontal", "AP"), ("3.png", 1, "Lateral", "LL"))
        cells = [f"{letter}{name},{label},{side},{view},{patient}{name}" for name, label, side, view in rows]
        return "\n".join(["Image,Edema,Frontal/Lateral,Beam,Patientid", *cells])

    def images(**where):
        result = check(tmp_path, everywhere=with_views, where=where, findings=["Edema"])
        assert result.exit_code == 0, result.as_text()
        return result.splits["val"].images

    frontal = {"frontal/lateral": frozenset({"Frontal"})}
    assert images(**frontal) == ("b1.png", "b2.png")
    assert images(Beam=frozenset({"PA", "LL"})) == ("b1.png", "b3.png")
    assert images(**frontal, Beam=frozenset({"AP", "LL"})) == ("b2.png",)
    none = check(tmp_path, everywhere=with_views, where={"Beam": frozenset({"XX"})}, findings=["Edema"])
    assert "--where chooses none of its 3 rows" in none.faults[0].message
    unknown = check(tmp_path, everywhere=with_views, where={"View": frozenset({"XX"})})
    assert "no column 'View'" in unknown.faults[0].message


# A header of a table of genes, or of every pixel


class CountedKey(str):
    """A key that counts how often it is compared."""

    __slots__ = ()
    num_compared = 0

    def __eq__(self, other):
        CountedKey.num_compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


@pytest.mark.fault("C98")
def test_a_header_of_thousands_of_columns_is_compared_once_over(monkeypatch):
    """Pair by pair, 20,000 names took 15 s."""
    problems, keys = DataProblems(), [CountedKey(f"f{k}") for k in range(2000)]
    header = columns._Header([*keys, "F7"], [*keys, CountedKey("f7")], 1, "wide.csv", problems)
    monkeypatch.setattr(CountedKey, "num_compared", 0)
    assert columns._misname_columns(header, set(keys))
    assert CountedKey.num_compared < 10 * len(keys)
    assert [problem.message for problem in problems.listed] == ["2 columns have the same name: 'f7', 'F7'. Keep one."]
