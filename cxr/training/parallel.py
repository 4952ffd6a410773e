"""One training run on several devices or in several processes: who takes part, and which share of a batch is whose.

Built on `keras.distribution` with the JAX backend: every device has all the weights and a share of each batch, and the
mathematics (batch statistics, loss, gradients) is that of the whole batch. Without several devices everything here is
the identity. Processes are described by the environment variables that Keras reads.
"""

import contextlib
import os
import weakref
from collections.abc import Callable, Iterator

import keras
import numpy as np

from cxr.system.terminal import quiet_stderr
from cxr.training.run_control import ADDRESSES, ParallelError, configured_processes


def join() -> str:
    """Meet the other processes and spread the work over all devices; to be called before anything is computed.

    Returns: in words, what takes part.
    Raises:
        ParallelError: several processes without the JAX backend, or the others do not come.
    """
    with quiet_stderr():
        num_processes = _meet()
        keras.ops.zeros(1)  # the first use of the device has its own lines to print
    processes = f" in {num_processes} processes" if num_processes > 1 else ""
    return f"{num_devices()} device{'s' * (num_devices() > 1)}{processes}"


def _meet() -> int:
    """Do what `join` says; return the number of processes."""
    num_processes, process_id = configured_processes()
    backend = keras.backend.backend()
    if num_processes > 1:
        if backend != "jax":
            raise ParallelError(f"Several processes need KERAS_BACKEND=jax, this run uses {backend}. Set it for each.")
        try:
            keras.distribution.initialize(os.environ[ADDRESSES], num_processes, process_id)
        except RuntimeError as error:  # of JAX: nobody answers at the address, or somebody does not come
            raise ParallelError(
                f"The {num_processes} processes did not meet at {os.environ[ADDRESSES]}: {str(error).splitlines()[0]} "
                "Start all of them within five minutes, with the same address."
            ) from error
    if backend == "jax" and len(keras.distribution.list_devices()) > 1:
        keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
    return num_processes


def num_devices() -> int:
    """How many devices share a batch."""
    distribution = keras.distribution.distribution()
    return 1 if distribution is None else distribution.num_model_replicas


def _processes() -> tuple[int, int]:
    distribution = keras.distribution.distribution()
    return (1, 0) if distribution is None else (distribution.num_processes, distribution.data_shard_id)


def is_several() -> bool:
    """Whether other processes take part."""
    return _processes()[0] > 1


def is_first() -> bool:
    """Whether this is the process that writes files and speaks to the user."""
    return _processes()[1] == 0


def check_batch_size(batch_size: int) -> None:
    """Make sure that every device gets equally many images.

    Raises:
        ParallelError: it does not.
    """
    if batch_size % num_devices():
        raise ParallelError(
            f"A batch of {batch_size} images cannot be shared equally by {num_devices()} devices. Choose a "
            f"--batch-size that is a multiple of {num_devices()} and not larger than the training split."
        )


def whole_batch_size(batch_size: int) -> int:
    """Round a batch size up to a multiple of the devices."""
    return -(-batch_size // num_devices()) * num_devices()


def share_of_this_process() -> Callable[[int], slice]:
    """Return which of a batch's rows this process prepares, by their number; all of them where it is alone.

    A function, so that other threads can ask: Keras keeps a distribution for the thread that set it alone.
    """
    count, number = _processes()

    def own_rows(num_rows: int) -> slice:
        share = num_rows // count
        return slice(number * share, (number + 1) * share)

    return own_rows


def spread(batch: np.ndarray) -> object:
    """Put a batch that every process holds whole onto the devices, a share on each; as it is where there is one."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return batch
    import jax

    layout = distribution.get_data_layout(batch.shape).backend_layout
    return jax.make_array_from_process_local_data(layout, batch[share_of_this_process()(len(batch))])


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Compute in this process by itself, without the others and on one device, as long as the block lasts."""
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


class _Gather(keras.layers.Layer):
    """Give every device the rows of all."""

    def call(self, rows: keras.KerasTensor) -> keras.KerasTensor:
        mesh = keras.distribution.distribution().device_mesh
        layout = keras.distribution.TensorLayout([None] * len(rows.shape), mesh)
        return keras.distribution.distribute_tensor(rows, layout)


_gathering: weakref.WeakKeyDictionary[keras.Model, tuple[int, keras.Model]] = weakref.WeakKeyDictionary()


def gathering(network: keras.Model) -> keras.Model:
    """Return the network with its output gathered on every device, and so readable in every process."""
    if num_devices() == 1:
        return network
    num_trainable = len(network.trainable_variables)
    known, model = _gathering.get(network, (-1, None))
    if known != num_trainable:  # else kept: each new model is compiled anew, and so is one that was unfrozen
        model = keras.Model(network.input, _Gather()(network.output))
        _gathering[network] = num_trainable, model
    return model


def largest(number: int) -> int:
    """Return the largest of the numbers that the processes pass; all must call this at the same point."""
    if not is_several():
        return number
    from jax.experimental import multihost_utils

    return int(np.max(multihost_utils.process_allgather(np.array(number))))


def from_first(content: bytes | None) -> bytes | None:
    """Return what process 0 passes, in every process; all must call this at the same point."""
    if not is_several():
        return content
    from jax.experimental import multihost_utils

    length = int(multihost_utils.broadcast_one_to_all(np.array(-1 if content is None else len(content))))
    if length < 0:
        return None
    own = np.frombuffer(content, np.uint8) if is_first() else np.zeros(length, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(own)).tobytes()
