"""How GRPO is to train: one value, validated before anything is loaded or drawn."""

from dataclasses import dataclass

import optax

from nblib.training.checkpoints import checkpointing_options
from nblib.training.optimizers import learning_rate_schedule

LOSSES = ("grpo", "dr-grpo", "gspo-token")
KL_ESTIMATORS = ("low_var_kl", "kl", "mse_kl")


@dataclass(frozen=True, kw_only=True)
class GrpoConfig:
    """How to train; validated on construction. Sizes are in prompts, lengths in tokens."""

    learning_rate: float  # peak
    steps: int  # batches of prompts, each with fresh completions
    prompts_per_step: int
    max_prompt_length: int
    max_new_tokens: int
    num_generations: int = 8  # completions a prompt: the group
    num_iterations: int = 1  # updates on the same completions
    loss: str = "grpo"
    beta: float = 0.0  # weight of the KL term; 0 needs no reference
    kl: str = "low_var_kl"  # Schulman's estimator: never negative, low variance
    epsilon: float = 0.2  # Tunix's default
    temperature: float = 1.0
    micro_batch: int = 0  # prompts a forward pass; 0: all of the step
    remat: bool = False  # keep layers' inputs only: a fraction of the memory, a third more work
    optimizer: str = "adamw"
    weight_decay: float = 0.0  # it would move weights even where no group has an advantage
    clip_norm: float = 1.0
    warmup_share: float = 0.05
    final_share: float = 0.1
    probe_every: int = 0  # steps; 0: no probe
    save_interval: str = "30 min"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot train, with the reason."""
        counts = ("steps", "prompts_per_step", "max_prompt_length", "max_new_tokens")
        for name in (*counts, "num_iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate {self.learning_rate} must be above 0")
        if self.num_generations < 2:
            raise ValueError(
                f"num_generations {self.num_generations}: a group of one has no advantage; "
                "use at least 2"
            )
        if self.loss not in LOSSES:
            raise ValueError(f"loss {self.loss!r} is unknown: expected one of {', '.join(LOSSES)}")
        if self.kl not in KL_ESTIMATORS:
            names = ", ".join(KL_ESTIMATORS)
            raise ValueError(f"kl {self.kl!r} is unknown: expected one of {names}")
        if self.beta < 0 or self.temperature <= 0:
            raise ValueError(
                f"beta {self.beta} must be at least 0 and temperature {self.temperature} above 0"
            )
        self._check_combinations()
        checkpointing_options(self.save_interval)

    def _check_combinations(self) -> None:
        if self.num_iterations > 1 and self.temperature != 1.0:
            raise ValueError(
                f"num_iterations {self.num_iterations} needs temperature 1.0, got "
                f"{self.temperature}: Tunix takes the old log-probabilities at 1.0"
            )
        if self.micro_batch and self.prompts_per_step % self.micro_batch:
            raise ValueError(
                f"micro_batch {self.micro_batch} must divide prompts_per_step "
                f"{self.prompts_per_step}"
            )

    @property
    def schedule(self) -> optax.Schedule:
        """The learning rate over the updates."""
        return learning_rate_schedule(
            self.learning_rate,
            self.steps * self.num_iterations,
            warmup_share=self.warmup_share,
            final_share=self.final_share,
        )
