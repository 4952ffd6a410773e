"""Downloading and unpacking NIH's archives: broken lines, broken files, foreign members."""

import hashlib
import http.server
import io
import tarfile
import threading

import cv2
import numpy as np
import pytest
from nih_tables import ROWS, command

from cxr.data.checks import check_splits
from tools import prepare_nih
from tools.datasets.collection import PrepareError
from tools.nih import download, unpack
from tools.nih.download import ARCHIVES, Archive, DownloadError, download_archive
from tools.nih.unpack import unpack_archive

# Downloads


class BadLine(http.server.BaseHTTPRequestHandler):
    """Serve one file in pieces: each connection ends after `piece` bytes, whatever was promised."""

    def do_GET(self):
        server = self.server
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        server.starts.append(start)
        if server.failures:
            self.send_error(server.failures.pop(0))
            return
        partial = start > 0 and server.can_resume
        rest = server.content[start:] if partial else server.content
        self.send_response(206 if partial else 200)
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[: server.pieces.pop(0)] if server.pieces else rest)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), BadLine)
    served.content = np.random.default_rng(0).bytes(3_000_000)
    served.pieces, served.failures, served.starts, served.can_resume = [], [], [], True
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    served.shutdown()
    thread.join()
    served.server_close()


def archive_of(server, **changes):
    known = {
        "name": "images_001.tar.gz",
        "url": f"http://127.0.0.1:{server.server_port}/images_001.tar.gz",
        "num_bytes": len(server.content),
        "md5": hashlib.md5(server.content, usedforsecurity=False).hexdigest(),
    }
    return Archive(**(known | changes))


def test_download_goes_on_where_the_connection_broke(server, tmp_path):
    server.pieces = [1_000_000, 0, 1_500_000]
    server.failures = [503]
    path = download_archive(archive_of(server), tmp_path, pause_seconds=0.01)
    assert path.read_bytes() == server.content
    assert server.starts == [0, 0, 1_000_000, 1_000_000, 2_500_000]
    assert [file.name for file in tmp_path.iterdir()] == ["images_001.tar.gz"]  # no .part is left


def test_download_of_a_killed_run_is_resumed(server, tmp_path):
    (tmp_path / "images_001.tar.gz.part").write_bytes(server.content[:2_000_001])
    assert download_archive(archive_of(server), tmp_path).read_bytes() == server.content
    assert server.starts == [2_000_001]
    assert download_archive(archive_of(server), tmp_path).read_bytes() == server.content
    assert server.starts == [2_000_001]  # complete: nobody is asked


def test_server_that_cannot_resume_starts_again(server, tmp_path):
    server.can_resume, server.pieces = False, [1_000_000]
    assert download_archive(archive_of(server), tmp_path, pause_seconds=0.01).read_bytes() == server.content
    assert server.starts == [0, 1_000_000]


def test_damaged_part_is_fetched_anew_once(server, tmp_path, caplog):
    (tmp_path / "images_001.tar.gz.part").write_bytes(bytes(1000))
    assert download_archive(archive_of(server), tmp_path).read_bytes() == server.content
    assert server.starts == [1000, 0]
    assert "wrong checksum" in caplog.text


def test_wrong_file_never_takes_the_name(server, tmp_path):
    with pytest.raises(DownloadError, match="twice another checksum"):
        download_archive(archive_of(server, md5="0" * 32), tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DownloadError, match=r"0 of 2,999,999 bytes .*the server offers 3,000,000 bytes"):
        download_archive(archive_of(server, num_bytes=2_999_999), tmp_path, pause_seconds=0.001)
    assert not (tmp_path / "images_001.tar.gz").exists()


def test_dead_line_ends_with_what_is_there_kept(server, tmp_path, monkeypatch):
    server.pieces = [1_000_000, *[0] * 20]
    with pytest.raises(DownloadError, match="1,000,000 of 3,000,000 bytes after 6 tries without progress"):
        download_archive(archive_of(server), tmp_path, pause_seconds=0.001)
    assert (tmp_path / "images_001.tar.gz.part").read_bytes() == server.content[:1_000_000]
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(DownloadError, match="Make room"):
        download_archive(archive_of(server), tmp_path)


def test_known_archives_are_nihs_twelve():
    assert [archive.name for archive in ARCHIVES] == [f"images_{k:03d}.tar.gz" for k in range(1, 13)]
    assert len({archive.url for archive in ARCHIVES}) == len({archive.md5 for archive in ARCHIVES}) == 12
    assert all(archive.url.startswith("https://nihcc.box.com/") and len(archive.md5) == 32 for archive in ARCHIVES)
    assert sum(archive.num_bytes for archive in ARCHIVES) == pytest.approx(45.08e9, rel=1e-3)  # "about 45 GB"


# Unpacking


def png(seed):
    picture = cv2.resize(np.random.default_rng(seed).integers(0, 256, (6, 5), np.uint8), (120, 100))
    return cv2.imencode(".png", picture)[1].tobytes()


def make_archive(path, members, kind=tarfile.REGTYPE):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(content), kind, "/etc/passwd"
            tar.addfile(info, io.BytesIO(content))
    return path


MEMBERS = {f"images/{image}": png(k) for k, (image, _, _) in enumerate(ROWS)}


KNOWN = {image for image, _, _ in ROWS}


def test_unpacking_keeps_the_bytes_and_passes_over_what_is_there(tmp_path):
    path, image_dir = make_archive(tmp_path / "images_001.tar.gz", MEMBERS), tmp_path / "images"
    assert unpack_archive(path, image_dir, KNOWN) == 6
    assert {file.name: file.read_bytes() for file in image_dir.iterdir()} == {
        name.removeprefix("images/"): content for name, content in MEMBERS.items()
    }
    (image_dir / "00000002_000.png").unlink()
    (image_dir / "00000003_000.png").write_bytes(b"cut short")
    assert unpack_archive(path, image_dir, KNOWN) == 2
    assert (image_dir / "00000003_000.png").read_bytes() == MEMBERS["images/00000003_000.png"]


def test_unpacking_resizes_as_the_network_input_is_resized(tmp_path):
    path, image_dir = make_archive(tmp_path / "images_001.tar.gz", MEMBERS), tmp_path / "images"
    assert unpack_archive(path, image_dir, KNOWN, image_size=40) == 6
    for name, content in MEMBERS.items():
        whole = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
        expected = cv2.resize(whole, (40, 40), interpolation=cv2.INTER_AREA)
        written = cv2.imread(str(image_dir / name.removeprefix("images/")), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(written, expected)
    assert unpack_archive(path, image_dir, KNOWN, image_size=40) == 0
    assert unpack_archive(path, image_dir, KNOWN, image_size=48) == 6  # of another size: written again


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../00000001_000.png", tarfile.REGTYPE),
        ("/00000001_000.png", tarfile.REGTYPE),
        ("images/../../00000001_000.png", tarfile.REGTYPE),
        ("elsewhere/00000001_000.png", tarfile.REGTYPE),
        ("images/setup.py", tarfile.REGTYPE),
        (".", tarfile.REGTYPE),
        ("images/00000001_000.png", tarfile.SYMTYPE),
        ("images/00000001_000.png", tarfile.LNKTYPE),
        ("images/00000001_000.png", tarfile.FIFOTYPE),
    ],
)
def test_members_that_are_no_known_radiograph_are_refused(tmp_path, name, kind):
    path = make_archive(tmp_path / "images_001.tar.gz", {name: b"" if kind != tarfile.REGTYPE else png(0)}, kind)
    with pytest.raises(PrepareError, match="is not a radiograph of the label table"):
        unpack_archive(path, tmp_path / "out" / "images", KNOWN)
    assert sorted(file.name for file in tmp_path.rglob("*") if file.is_file()) == ["images_001.tar.gz"]


def test_oversized_damaged_and_undecodable_members_are_refused(tmp_path, monkeypatch):
    path = make_archive(tmp_path / "images_001.tar.gz", MEMBERS)
    monkeypatch.setattr(unpack, "MAX_MEMBER_BYTES", 100)
    with pytest.raises(PrepareError, match="is not a radiograph"):
        unpack_archive(path, tmp_path / "images", KNOWN)
    monkeypatch.undo()
    cut = tmp_path / "images_002.tar.gz"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(PrepareError, match=r"images_002.tar.gz: damaged .*download it again"):
        unpack_archive(cut, tmp_path / "images", KNOWN)
    broken = make_archive(tmp_path / "images_003.tar.gz", {"images/00000001_000.png": b"not a picture"})
    with pytest.raises(PrepareError, match=r"00000001_000\.png"):
        unpack_archive(broken, tmp_path / "other", KNOWN, image_size=40)


def test_command_downloads_and_unpacks_everything(tables, monkeypatch, server, capsys):
    path = make_archive(tables / "served.tar.gz", MEMBERS)
    server.content, server.pieces = path.read_bytes(), [4000]
    monkeypatch.setattr("tools.datasets.nih.ARCHIVES", (archive_of(server),))
    assert prepare_nih.main(command(tables, "--download", "--image-size", "64")) == 0
    assert "6 images, 0 missing" in capsys.readouterr().out
    files = [tables / "out" / name for name in ("train-small.csv", "val_data.csv", "test_data.csv")]
    assert check_splits(*files, image_dir=tables / "out" / "images").faults == ()
    (tables / "empty").mkdir()
    assert prepare_nih.main(command(tables, "--archives", str(tables / "empty"))) == 2
    assert "no images_*.tar.gz found" in capsys.readouterr().err
