"""Another user, without a home and without a right to write into the project's folder, runs all three scripts."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
USER = 12345  # no such account
SETPRIV = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs")
NO_HOME = ("HOME", "USER", "LOGNAME", "XDG_CACHE_HOME", "MPLCONFIGDIR", "KERAS_HOME")


def interpreter() -> str | None:
    """Return a Python of this version that the other user may run; this one is often in somebody's home."""
    if os.name != "posix" or os.geteuid() or shutil.which("setpriv") is None:
        return None
    question = f"import sys; raise SystemExit(sys.version_info[:2] != {tuple(sys.version_info[:2])})"
    for candidate in (sys.executable, "/usr/bin/python3"):
        command = [*SETPRIV, candidate, "-c", question]
        if Path(candidate).exists() and subprocess.run(command, capture_output=True, check=False).returncode == 0:
            reads = [*SETPRIV, "test", "-r", str(ROOT / "main_train.py")]
            return candidate if subprocess.run(reads, check=False).returncode == 0 else None
    return None


PYTHON = interpreter()
pytestmark = pytest.mark.skipif(PYTHON is None, reason="needs root, setpriv and a Python that others may run")


@pytest.fixture
def own_folder():
    """A folder of the other user; pytest's own is closed to it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        os.chown(folder, USER, USER)
        yield Path(folder)


def run_as_other(folder, *arguments):
    environment = {name: value for name, value in os.environ.items() if name not in NO_HOME}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if "packages" in path)
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    command = [*SETPRIV, PYTHON, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.fault("T90")
@pytest.mark.parametrize("script", ["main_train.py", "gradcam.py", "app.py"])
def test_the_help_needs_neither_home_nor_account(own_folder, script):
    done = run_as_other(own_folder, ROOT / script, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage:" in done.stdout


@pytest.mark.fault("T90")
@pytest.mark.slow  # trains DenseNet121 for an epoch
def test_training_and_heatmaps_go_into_folders_of_the_other_user(own_folder):
    model = own_folder / "model" / "m.h5"
    options = ["--image-size", "32", "--weights", "none", "--epochs", "1", "--model-path", model]
    for split, file in (("train", "train-small.csv"), ("val", "val_data.csv"), ("test", "test_data.csv")):
        lines = (ROOT / file).read_text().splitlines(keepends=True)[:9]
        (own_folder / file).write_text("".join(lines))
        options += [f"--{split}-csv", own_folder / file]
    done = run_as_other(own_folder, ROOT / "main_train.py", *options, "--work-dir", "/proc")
    assert done.returncode == 3
    assert "/proc/cache: cannot be written" in done.stderr and "--work-dir" in done.stderr
    done = run_as_other(own_folder, ROOT / "main_train.py", *options, "--work-dir", own_folder)
    assert done.returncode == 0, done.stderr
    assert {"cache", "logs", "reports", "model"} <= {path.name for path in own_folder.iterdir()}
    image = ROOT / "images" / "00000011_001.png"
    done = run_as_other(own_folder, ROOT / "gradcam.py", image, "--model-path", model, "--panel")
    assert done.returncode == 0, done.stderr
    assert (own_folder / "gradcam_out" / "predictions.csv").is_file()
