"""What several processes that train one model need: agreement, and arrays that all hold in parts.

All of them run the same program on the same rows, with the same seeds, and each holds the part of
every array that its own devices have. So they must take every decision alike: what one of them
alone knows (a signal, its clock, a folder) is agreed on first. In one process all of this does
nothing. Who takes part is said by `hosts.launch`.
https://docs.jax.dev/en/latest/multi_process.html
"""

import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec, Sharding
from tunix.sft.sharding_utils import shard_input

from nblib.models.mesh import current_mesh

T = TypeVar("T")


class OtherProcessFailed(RuntimeError):
    """The first process could not do what the others need; its own message says why."""


def is_first() -> bool:
    """Whether this is the process that writes the run's folder, and speaks."""
    return jax.process_index() == 0


def agreed(value: T) -> T:
    """Return in every process what the first one gives; plain JSON."""
    if jax.process_count() == 1:
        return value
    text = json.dumps(value).encode()
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    given = np.frombuffer(text.ljust(length)[:length], np.uint8)
    found: T = json.loads(bytes(multihost_utils.broadcast_one_to_all(given)))
    return found


def in_first(work: Callable[[], T]) -> T:
    """Let the first process alone do something, and return its result, plain JSON, in all.

    Where it raises, it does so as ever, and the others raise OtherProcessFailed.
    """
    outcome: dict[str, Any] = {}
    try:
        if is_first():
            outcome = {"result": work()}
    finally:  # also where it raised: the others wait for this
        outcome = agreed(outcome)
    if "result" not in outcome:
        raise OtherProcessFailed("process 0 failed: see its message, above or in its own log")
    result: T = outcome["result"]
    return result


def of_all(value: float) -> list[float]:
    """Return the number that each process gives, by the processes' numbers."""
    if jax.process_count() == 1:
        return [value]
    return [float(one) for one in multihost_utils.process_allgather(np.float64(value))]


def check_same_in_all(value: Any, what: str) -> None:
    """Raise ValueError, in every process, where they do not all give the same plain JSON."""
    text = json.dumps(value, sort_keys=True).encode()
    digests = of_all(int.from_bytes(sha256(text).digest()[:3]))  # exact in fp32
    if others := [number for number, one in enumerate(digests) if one != digests[0]]:
        raise ValueError(
            f"{what} of process {', '.join(map(str, others))} differ from those of process 0: "
            "start all with the same command. Set JAX_NUM_PROCESSES to 1 for runs of their own"
        )


def on_mesh(tree: Any, sharding: Sharding) -> Any:
    """Return arrays, whole in every process, laid on the mesh: each process gives its own part."""

    def laid(array: Any) -> jax.Array:
        if sharding.is_fully_addressable or not getattr(array, "is_fully_addressable", True):
            return jax.device_put(array, sharding)
        # `device_put` would send every array from process to process, to compare it.
        whole = np.asarray(array)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(laid, tree)


def split_rows(batch: Any) -> Any:
    """Return a batch, whole in every process, split over the current mesh's "fsdp" axis by rows.

    Among several processes Tunix's `shard_input` alone would take the batch of each for rows of
    their own.
    """
    if jax.process_count() == 1:
        return shard_input(batch, ("fsdp",))
    return on_mesh(batch, NamedSharding(current_mesh(), PartitionSpec("fsdp")))


def on_host(tree: Any) -> Any:
    """Return arrays as numpy's, whole, also where no process holds the whole; all must ask."""

    def whole(array: Any) -> np.ndarray:
        if getattr(array, "is_fully_addressable", True) or array.is_fully_replicated:
            return np.asarray(array)
        gathered: np.ndarray = multihost_utils.process_allgather(array, tiled=True)
        return gathered

    return jax.tree.map(whole, tree)
