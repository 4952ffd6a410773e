"""One model file under running sites: it may be replaced, removed or damaged, and shared."""

import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from quick_site import StandIn
from served_model import random_inputs, served_model

from cxr.site.errors import SiteError
from cxr.site.model_slot import ModelSlot


@pytest.fixture
def path(tmp_path):
    return shutil.copy(served_model().path, tmp_path / "model.h5")


def load_with_this_backend(path, _precision):
    from cxr.inference.predictor import Predictor

    return Predictor(path)


def ready(path):
    slot = ModelSlot(path, load=load_with_this_backend)
    slot.load()
    assert slot.state == "ready"
    return slot


@pytest.mark.fault("H67")
def test_a_running_site_keeps_its_model_whatever_happens_to_the_file(path):
    slot, inputs = ready(path), random_inputs(2)
    before = slot.require().predict(inputs)[0]
    with path.open("r+b") as file:  # damaged in place
        file.write(bytes(100_000))
    np.testing.assert_array_equal(slot.require().predict(inputs)[0], before)
    shutil.copy(path, path.with_suffix(".new")).replace(path)
    np.testing.assert_array_equal(slot.require().predict(inputs)[0], before)
    path.unlink()
    np.testing.assert_array_equal(slot.require().predict(inputs)[0], before)


@pytest.mark.fault("H67")
def test_two_sites_share_a_file(path):
    code = "import h5py, sys; file = h5py.File(sys.argv[1], 'r'); print(len(file), flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:  # is reading it
        assert other.stdout.readline()
        slots = [ready(path), ready(path)]
        other.stdin.close()
    answers = [slot.require().predict(random_inputs(1))[0] for slot in slots]
    np.testing.assert_array_equal(*answers)


@pytest.mark.fault("H67")
def test_each_process_loads_once_and_in_the_background():
    loads = []
    slot = ModelSlot(__file__, load=lambda path, precision: loads.append(path) or StandIn())
    with pytest.raises(SiteError):
        slot.require()
    for _ in range(3):
        slot.load_once_in_background()
    for _ in range(200):
        if slot.state == "ready":
            break
        time.sleep(0.05)
    assert len(loads) == 1
