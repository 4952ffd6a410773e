"""Archives, tables and lists of NIH that are damaged or made to do harm: clear lines, nothing wrong kept."""

import gzip
import io
import tarfile

import cv2
import numpy as np
import pytest

from tools.datasets.collection import PrepareError
from tools.nih.tables import read_entries, read_list
from tools.nih.unpack import unpack_archive

NAMES = ("00000001_000.png", "00000002_000.png")


def picture(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (80, 80), np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def tar_of(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(f"images/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def plain():
    return tar_of([(name, picture(k)) for k, name in enumerate(NAMES)])


def refused(tmp_path, content, match):
    path = tmp_path / "images_001.tar.gz"
    path.write_bytes(content)
    with pytest.raises(PrepareError, match=match) as error:
        unpack_archive(path, tmp_path / "images", NAMES)
    assert "ownload it again" in str(error.value)


def flip(data, position):
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


@pytest.mark.fault("C85")
@pytest.mark.parametrize("change", [lambda d: flip(d, -6), lambda d: flip(d, -2), lambda d: d[:-8], lambda d: d[:-3]])
def test_checksum_length_and_end_of_an_archive_are_looked_at(tmp_path, plain, change):
    refused(tmp_path, change(gzip.compress(plain)), r"images_001.tar.gz: damaged")


@pytest.mark.fault("C85")
def test_a_changed_picture_is_refused_and_not_kept(tmp_path, plain):
    """The archive is whole in itself, as after a flipped byte before it was packed."""
    position = plain.index(b"IDAT") + 40
    refused(tmp_path, gzip.compress(flip(plain, position)), NAMES[0])
    assert not (tmp_path / "images" / NAMES[0]).exists()


@pytest.mark.fault("C85")
def test_a_damaged_header_between_members_does_not_end_the_archive_in_silence(tmp_path):
    data = [(name, picture(k) + b"\0" * 30_000) for k, name in enumerate(NAMES)]
    plain = tar_of(data)
    refused(tmp_path, gzip.compress(flip(plain, plain.index(NAMES[1].encode()))), "no member begins where one should")


@pytest.mark.fault("C85")
def test_a_member_that_is_there_twice_is_refused(tmp_path):
    refused(tmp_path, gzip.compress(tar_of([(NAMES[0], picture(0)), (NAMES[0], picture(1))])), "is in it twice")


@pytest.mark.fault("C85")
@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_header_that_claims_a_gigabyte_is_refused_before_it_is_read(tmp_path, kind):
    member = tarfile.TarInfo("x")
    member.type, member.size = kind, 2**30
    content = gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + b"a" * 100_000)
    refused(tmp_path, content, "a header of 1,073,741,824 bytes, expected at most 65,536")


HEADER = b"Image Index,Finding Labels,Patient ID\n"


@pytest.mark.fault("C86")
@pytest.mark.parametrize(
    ("content", "match"),
    [
        (HEADER + b"a.png," + b"x" * 200_000 + b",1\n", r"table.csv line 2: .*not valid CSV \(field larger"),
        (HEADER + b'a.png,"No Finding" x,1\n', "line 2: .*not valid CSV"),
        (flip(gzip.compress(HEADER * 50, mtime=0), 20), "table.csv.*: damaged gzip file"),
        (gzip.compress(HEADER * 50, mtime=0)[:-9], "table.csv.*: damaged gzip file"),
        (HEADER + b"a\0.png,No Finding,1\n", "byte 0x00 at offset"),
    ],
)
def test_damaged_tables_are_named_with_their_line(tmp_path, content, match):
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(PrepareError, match=match):
        read_entries(tmp_path / "table.csv")


@pytest.mark.fault("C86")
def test_a_damaged_list_is_named(tmp_path):
    (tmp_path / "list.txt").write_bytes(flip(gzip.compress(b"a.png\n" * 99), 16))
    with pytest.raises(PrepareError, match=r"list.txt.*: damaged gzip file"):
        read_list(tmp_path / "list.txt")
