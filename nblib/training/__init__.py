"""Training: the losses, the supervised trainer and GRPO, checkpoints that survive a kill.

`train` and `train_grpo` share the `session` that ends early and the `checkpoints` it goes on from.
`rollouts` keeps what the policy writes, `alarms` says what has begun to go wrong.
"""

from nblib import public_names

__getattr__, __all__, __dir__ = public_names(
    __name__,
    {
        "sft": "SftConfig train",
        "grpo_config": "GrpoConfig",
        "grpo": "train_grpo",
        "rollouts": "read_rollouts",
        "session": "Trained",
    },
)
