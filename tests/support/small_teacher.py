"""A small network in a teacher's place, and its file."""

import keras
import numpy as np
from small_network import build_small_network

from cxr.distillation import teacher_file
from cxr.distillation.teacher_file import TeacherInfo, save_teacher

TEACHER_SIZE = 80


def build_small_teacher(findings, size, batch_norm_momentum=0.99, precision="float32"):
    return build_small_network(findings, size)


def use_small_teachers(monkeypatch):
    """Let teachers' files, and model files that teach, hold small networks."""
    monkeypatch.setattr(teacher_file, "build_teacher", build_small_teacher)
    monkeypatch.setattr(teacher_file, "build_network", build_small_teacher)


def write_small_teacher(path, findings, seed=2, **changes):
    """Save a teacher of random weights; return its network."""
    network = build_small_network(findings, TEACHER_SIZE)
    rng = np.random.default_rng(seed)
    network.set_weights([rng.uniform(-0.9, 0.9, weight.shape) ** 2 for weight in network.get_weights()])
    head = network.get_layer("logits")
    head.set_weights([rng.normal(0, 2, weight.shape) for weight in head.get_weights()])
    save_teacher(network, TeacherInfo(tuple(findings), TEACHER_SIZE, **changes), path)
    return keras.Model(network.input, network.get_layer("logits").output)
