"""How many processes train together, by the environment variables that Keras reads. Needs no Keras."""

import os
from collections.abc import Mapping

ADDRESSES, NUM_PROCESSES, PROCESS_ID = (
    f"KERAS_DISTRIBUTION_{name}" for name in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")
)
LOST_PEER_SIGNS = ("gloo", "nccl", "connection closed", "coordination", "heartbeat", "barrier", "peer")


class ParallelError(ValueError):
    """Processes or devices that cannot train together; the message says what to change."""


def configured_processes(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Return (number of processes, number of this one from 0) as Keras' environment variables say; (1, 0) without.

    Raises:
        ParallelError: some of them are missing or make no sense.
    """
    given = {name: environment.get(name, "") for name in (ADDRESSES, NUM_PROCESSES, PROCESS_ID)}
    if not any(given.values()):
        return 1, 0
    numbers = [given[name] for name in (NUM_PROCESSES, PROCESS_ID)]
    if not given[ADDRESSES] or not all(number.isdecimal() for number in numbers) or int(numbers[1]) >= int(numbers[0]):
        received = ", ".join(f"{name}={value!r}" for name, value in given.items())
        raise ParallelError(
            f"Expected {ADDRESSES} as host:port of process 0, {NUM_PROCESSES} of at least 1 and {PROCESS_ID} from 0 to "
            f"one less. Received: {received}. Set all three, or none."
        )
    return int(numbers[0]), int(numbers[1])


def is_lost_peer(error: BaseException) -> bool:
    """Say whether an error means that another process of the run has gone."""
    text = f"{type(error).__name__} {error}".lower()
    return configured_processes()[0] > 1 and any(sign in text for sign in LOST_PEER_SIGNS)
