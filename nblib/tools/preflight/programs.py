"""The programs in which a notebook's run spends its time, lowered without weights to compile.

SFT has one update for each shape of its batches; GRPO has its update, prefill and decode.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import cycle, islice
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from tunix.models.gemma3.model import GEMMA3_ATTENTION_PATTERN, AttentionType, ModelConfig
from tunix.sft.peft_trainer import PeftTrainer, TrainingInput

from nblib.hosts.settings import GrpoSettings, SftSettings
from nblib.models.abstract import (
    abstractly,
    named_config,
    sharded_as_on_accelerators,
    trainable_model,
)
from nblib.models.causal_attention import SHARING_LENGTH, kernel_operations, takes_kernel
from nblib.models.decode_batch import BLOCK, GROUPS, cache_shapes, call_in_place, last_logits
from nblib.models.gemma3 import parameter_count
from nblib.models.lora import LORA_PARAMETER, LoraConfig
from nblib.tokens.batches import bucket_of
from nblib.tools.preflight.compiled import Compiled, compile_cached
from nblib.tools.preflight.targets import Target
from nblib.tools.preflight.workload import Workload
from nblib.training.cluster import policy_trainer
from nblib.training.grpo_config import GrpoConfig
from nblib.training.optimizers import jit_step
from nblib.training.policy_batch import PolicyBatch
from nblib.training.sft import build_trainer


@dataclass(frozen=True, kw_only=True)
class Program:
    """One compiled function: what it computes on, how often, and how it is lowered."""

    name: str
    rows: int
    length: int
    times: int  # in the whole run
    key: Mapping[str, Any]  # what it is made from
    lower: Callable[[], Any]
    uncounted: float = 0.0  # operations of a device that a TPU's compiler does not count

    def compiled_for(self, target: Target, mesh: jax.sharding.Mesh) -> Compiled:
        """Compile it, or find what was compiled before."""
        machine = {"target": target.topology or target.kind, "mesh": dict(mesh.shape)}
        found = compile_cached(
            {**machine, "name": self.name, "rows": self.rows, "length": self.length, **self.key},
            self.lower,
            memory_bytes=0 if target.kind == "tpu" else target.memory_bytes,
        )
        more = self.uncounted if target.kind == "tpu" else 0.0
        return replace(found, flops=found.flops + more)


def programs(
    settings: SftSettings | GrpoSettings, mesh: jax.sharding.Mesh, work: Workload | None = None
) -> tuple[Program, ...]:
    """Return a notebook's programs; first the update of the batch that needs most memory."""
    if isinstance(settings, SftSettings):
        return _sft_programs(settings, mesh, work)
    return _grpo_programs(settings, mesh)


def largest_batch(settings: SftSettings, mesh: jax.sharding.Mesh) -> tuple[int, int]:
    """Return rows and length of SFT's longest batch."""
    length, multiple = bucket_of(settings.max_length), mesh.shape["fsdp"]
    return max(1, settings.batch_tokens // length // multiple) * multiple, length


def weight_counts(settings: SftSettings | GrpoSettings, mesh: jax.sharding.Mesh) -> tuple[int, int]:
    """Return how many weights the model has without adapters, and how many are trained."""
    config = named_config(settings.model, dtype=settings.dtype)  # no factor is a weight
    (model,) = abstractly(lambda: (trainable_model(config, settings.lora),), mesh)
    adapters = parameter_count(model, LORA_PARAMETER)
    whole = parameter_count(model) - adapters
    return whole, adapters or whole


def _sft_programs(
    settings: SftSettings, mesh: jax.sharding.Mesh, work: Workload | None
) -> tuple[Program, ...]:
    times = {largest_batch(settings, mesh): 0, **(work.shapes if work else {})}
    config, factor = settings.training, settings.rope_factor
    model = named_config(settings.model, dtype=settings.dtype, rope_factor=factor)

    def build() -> PeftTrainer:
        return build_trainer(trainable_model(model, settings.lora), config, steps=1000)

    def update(rows: int, length: int) -> Program:
        return Program(
            name="update",
            rows=rows,
            length=length,
            times=times[rows, length],
            key={"kind": "sft", "model": repr(model), **asdict(settings.lora), **asdict(config)},
            lower=lambda: lower_train_step(build, sft_batch(rows, length, mesh), mesh),
            uncounted=attention_operations(model, rows, length, mesh, remat=config.remat),
        )

    # Attention's share grows with the length: of equally many tokens the longer rows need more.
    order = sorted(times, key=lambda shape: (-math.prod(shape), -shape[1]))
    return tuple(update(*shape) for shape in order)


def attention_operations(
    model: ModelConfig,
    rows: int,
    length: int,
    mesh: jax.sharding.Mesh,
    *,
    remat: bool,
    shared: bool = False,
) -> float:
    """Return a device's operations in the attention kernel of a step; 0 where it is not used."""
    if not takes_kernel(length, model.head_dim, shared=shared):
        return 0.0
    windows = {AttentionType.GLOBAL: None, AttentionType.LOCAL_SLIDING: model.sliding_window_size}
    kinds = islice(cycle(GEMMA3_ATTENTION_PATTERN), model.num_layers)
    of_a_head = sum(
        kernel_operations(length, model.head_dim, windows[kind], remat=remat) for kind in kinds
    )
    return rows * model.num_heads * of_a_head / mesh.size


def _grpo_programs(settings: GrpoSettings, mesh: jax.sharding.Mesh) -> tuple[Program, ...]:
    config, model = settings.grpo, named_config(settings.model, dtype=settings.dtype)
    key = {"kind": "grpo", "model": repr(model), **asdict(settings.lora), **asdict(config)}
    rows = config.prompts_per_step * config.num_generations
    at_once = config.rows_at_once(mesh.shape["fsdp"])
    blocks = math.ceil(config.max_prompt_length / BLOCK)
    length = config.max_prompt_length + config.max_new_tokens

    def build() -> PeftTrainer:
        return policy_trainer(trainable_model(model, settings.lora), config)

    def forward(name: str, rows: int, tokens: int, cached: int, times: int) -> Program:
        return Program(
            name=name,
            rows=rows,
            length=tokens,
            times=times * config.steps,
            key=key,
            lower=lambda: _lower_forward(
                model, settings.lora, rows=rows, tokens=tokens, cache_length=cached, mesh=mesh
            ),
        )

    # Of the loop over micro-batches the compiler counts one turn; so many have the longest answers.
    update = Program(
        name="update",
        rows=at_once,
        length=config.row_length,
        times=config.steps * config.num_iterations * math.ceil(rows / at_once),
        key=key,
        lower=lambda: lower_train_step(build, grpo_batch(config, mesh), mesh),
        uncounted=attention_operations(
            model,
            at_once,
            config.row_length,
            mesh,
            remat=config.remat,
            shared=config.row_length <= SHARING_LENGTH,
        ),
    )
    return (
        update,
        forward("prefill", max(1, rows // GROUPS), BLOCK, blocks * BLOCK, GROUPS * blocks),
        forward("decode", rows, 1, length, config.max_new_tokens),
    )


def lower_train_step(build: Callable[[], PeftTrainer], batch: Any, mesh: jax.sharding.Mesh) -> Any:
    """Return the step of the trainer that `build` makes, lowered as it is in a training."""
    trainers: list[PeftTrainer] = []

    def modules() -> tuple[nnx.Module, nnx.Module]:
        trainers.append(build())
        return trainers[-1].model, trainers[-1].optimizer

    with mesh:
        model, optimizer = abstractly(modules, mesh)
        with sharded_as_on_accelerators():
            return jit_step(trainers[-1]).lower(model, optimizer, batch).lowered


def _lower_forward(
    config: ModelConfig,
    lora: LoraConfig,
    *,
    rows: int,
    tokens: int,
    cache_length: int,
    mesh: jax.sharding.Mesh,
) -> Any:
    """Return one forward pass of the decoder, lowered: `tokens` new ones a row enter the KV cache.

    Prefill takes several of them a prompt, decode one a token.
    """
    with mesh:
        (model,) = abstractly(lambda: (trainable_model(config, lora),), mesh)
    graphdef, state = nnx.split(model)

    @partial(jax.jit, donate_argnames=("cache",))
    def forward(
        state: nnx.State, ids: Any, positions: Any, cache: Any, begin: Any, mask: Any
    ) -> tuple[jax.Array, Any]:
        hidden, cache = call_in_place(graphdef, state, ids, positions, cache, begin, mask)
        return jnp.argmax(last_logits(state, hidden), axis=-1), cache

    cache = {
        layer: dict.fromkeys(("k", "v"), _split(shape, config.param_dtype, mesh))
        for layer, shape in cache_shapes(model, rows, cache_length).items()
    }
    ids, begin = _split((rows, tokens), jnp.int32, mesh), jax.ShapeDtypeStruct((), jnp.int32)
    mask = _split((rows, tokens, cache_length), jnp.bool_, mesh)
    with mesh, sharded_as_on_accelerators():
        return forward.lower(state, ids, ids, cache, begin, mask)


def sft_batch(rows: int, length: int, mesh: jax.sharding.Mesh) -> TrainingInput:
    """Return a batch without data, split as Tunix's trainer splits it."""
    return TrainingInput(
        input_tokens=_split((rows, length), jnp.int32, mesh),
        input_mask=_split((rows, length), jnp.float32, mesh),
    )


def grpo_batch(config: GrpoConfig, mesh: jax.sharding.Mesh) -> PolicyBatch:
    """Return the completions of a step in packed rows, without data."""
    rows = config.rows_at_once(mesh.shape["fsdp"])
    parts = math.ceil(config.prompts_per_step * config.num_generations / rows)
    shape = (rows, parts, config.row_length)
    tokens, values = (_split(shape, dtype, mesh) for dtype in (jnp.int32, jnp.float32))
    return PolicyBatch(
        tokens=tokens,
        positions=tokens,
        segments=tokens,
        prefixes=tokens,
        weights=values,
        advantages=values,
        old_log_probs=values if config.num_iterations > 1 else None,
        reference_log_probs=values if config.beta > 0 else None,
    )


def _split(shape: tuple[int, ...], dtype: Any, mesh: jax.sharding.Mesh) -> jax.ShapeDtypeStruct:
    # What the mesh does not divide, Tunix replicates.
    axis = "fsdp" if shape[0] % mesh.shape["fsdp"] == 0 else None
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(axis)))
