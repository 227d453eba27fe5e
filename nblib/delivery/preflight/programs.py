"""The programs that a notebook's run would spend its time in, ready to be compiled.

SFT has one update for each shape of its batches; GRPO has its update and the sampler's two.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import jax

from nblib.delivery.preflight import steps
from nblib.delivery.preflight.compiled import Compiled, compile_cached
from nblib.delivery.preflight.plan import Work
from nblib.delivery.preflight.targets import Target
from nblib.delivery.settings import GrpoSettings, SftSettings
from nblib.models.abstract import abstractly, named_config, trainable_model
from nblib.models.decode_batch import BLOCK, GROUPS
from nblib.models.gemma3 import parameter_count
from nblib.models.lora import LORA_PARAMETER
from nblib.tokens.batches import bucket_of


@dataclass(frozen=True, kw_only=True)
class Program:
    """One compiled function: what it computes on, how often, and how it is lowered."""

    name: str
    rows: int
    length: int
    times: int  # in the whole run
    key: Mapping[str, Any]  # what it is made from
    lower: Callable[[], Any]

    def compiled_for(self, target: Target, mesh: jax.sharding.Mesh) -> Compiled:
        """Compile it, or find what was compiled before."""
        place = {"target": target.topology or target.kind, "mesh": dict(mesh.shape)}
        return compile_cached(
            {**place, "name": self.name, "rows": self.rows, "length": self.length, **self.key},
            self.lower,
            memory_bytes=0 if target.kind == "tpu" else target.memory_bytes,
        )


def programs(
    settings: SftSettings | GrpoSettings, mesh: jax.sharding.Mesh, work: Work | None = None
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
    config = named_config(settings.model, dtype=settings.dtype)
    (model,) = abstractly(lambda: (trainable_model(config, **settings.lora),), mesh)
    adapters = parameter_count(model, LORA_PARAMETER)
    whole = parameter_count(model) - adapters
    return whole, adapters or whole


def _sft_programs(
    settings: SftSettings, mesh: jax.sharding.Mesh, work: Work | None
) -> tuple[Program, ...]:
    times = {largest_batch(settings, mesh): 0, **(work.shapes if work else {})}
    config = settings.training
    model = named_config(settings.model, dtype=settings.dtype)

    def program(rows: int, length: int) -> Program:
        return Program(
            name="update",
            rows=rows,
            length=length,
            times=times[rows, length],
            key={"kind": "sft", "model": repr(model), **settings.lora, **asdict(config)},
            lower=lambda: steps.lower_sft_step(
                model, config, rows=rows, length=length, mesh=mesh, **settings.lora
            ),
        )

    # Attention's share grows with the length: of equally many tokens the longer rows need more.
    order = sorted(times, key=lambda shape: (-math.prod(shape), -shape[1]))
    return tuple(program(*shape) for shape in order)


def _grpo_programs(settings: GrpoSettings, mesh: jax.sharding.Mesh) -> tuple[Program, ...]:
    config = settings.grpo
    model = named_config(settings.model, dtype=settings.dtype)
    key = {"kind": "grpo", "model": repr(model), **settings.lora, **asdict(config)}
    micro = config.micro_batch or config.prompts_per_step
    group, read = config.num_generations, config.max_prompt_length
    length = read + config.max_new_tokens
    rows, blocks = config.prompts_per_step * group, math.ceil(read / BLOCK)

    def sampler(name: str, rows: int, tokens: int, cached: int, times: int) -> Program:
        return Program(
            name=name,
            rows=rows,
            length=tokens,
            times=times * config.steps,
            key=key,
            lower=lambda: steps.lower_sampler(
                model, rows=rows, tokens=tokens, cache_length=cached, mesh=mesh, **settings.lora
            ),
        )

    update = Program(
        name="update",
        rows=micro * group,
        length=length,
        times=config.steps * config.num_iterations * (config.prompts_per_step // micro),
        key=key,
        lower=lambda: steps.lower_grpo_step(model, config, mesh=mesh, **settings.lora),
    )
    return (
        update,
        sampler("prefill", max(1, rows // GROUPS), BLOCK, blocks * BLOCK, GROUPS * blocks),
        sampler("decode", rows, 1, length, config.max_new_tokens),
    )
