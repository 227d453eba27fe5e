"""Training: the loss, the supervised trainer, checkpoints that survive a kill."""
