"""How GRPO is to train: one value, validated before anything is loaded or drawn."""

from dataclasses import dataclass

from nblib.training.optimizers import TrainerConfig

LOSSES = ("grpo", "dr-grpo", "gspo-token")
KL_ESTIMATORS = ("low_var_kl", "kl", "mse_kl")
_MULTIPLE = 32  # of it are the lengths of rows


@dataclass(frozen=True, kw_only=True)
class GrpoConfig(TrainerConfig):
    """How to train; validated on construction. Sizes are in prompts, lengths in tokens."""

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
    batch_tokens: int = 4096  # a forward pass, padding included
    probe_every: int = 0  # steps; 0: no probe
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot train, with the reason."""
        super().__post_init__()
        counts = ("steps", "prompts_per_step", "max_prompt_length", "max_new_tokens")
        for name in (*counts, "num_iterations", "batch_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        for name, known in {"loss": LOSSES, "kl": KL_ESTIMATORS}.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} {getattr(self, name)!r} is unknown: expected one of {', '.join(known)}"
                )
        if self.num_generations < 2:
            raise ValueError(
                f"num_generations {self.num_generations}: a group of one has no advantage; "
                "use at least 2"
            )
        if self.beta < 0 or self.temperature <= 0:
            raise ValueError(
                f"beta {self.beta} must be at least 0 and temperature {self.temperature} above 0"
            )
        if self.num_iterations > 1 and self.temperature != 1.0:
            raise ValueError(
                f"num_iterations {self.num_iterations} needs temperature 1.0, got "
                f"{self.temperature}: Tunix takes the old log-probabilities at 1.0"
            )

    @property
    def updates(self) -> int:
        """Of the weights in the whole training."""
        return self.steps * self.num_iterations

    @property
    def row_length(self) -> int:
        """Of packed rows, in tokens: the longest prompt and completion fit."""
        return -(-(self.max_prompt_length + self.max_new_tokens) // _MULTIPLE) * _MULTIPLE

    def rows_at_once(self, devices: int) -> int:
        """Return how many packed rows a forward pass has: a multiple of the devices it is on.

        As many as the step has completions are always enough.
        """
        fitting = self.batch_tokens // self.row_length // devices
        most = -(-self.prompts_per_step * self.num_generations // devices)
        return max(1, min(fitting, most)) * devices
