"""Training: the loss, the supervised trainer and GRPO, checkpoints that survive a kill.

`sft` and `grpo` share the `session` that ends early and the `checkpoints` it goes on from;
`rollouts` draws and logs what the policy writes, `signals` measures it, `alarms` says
what has begun to go wrong.
"""
