"""Text to tokens and back: the tokenizer and its fingerprint, the chat template, the batches."""
