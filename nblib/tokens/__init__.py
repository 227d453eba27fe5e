"""Text to tokens and back: tokenizer and fingerprint, chat template, loss masks, batches."""

from nblib import public_names

__getattr__, __all__, __dir__ = public_names(
    __name__,
    {
        "batches": "encode_task fitting_prompts show_loss_mask",
        "chat": "render_prompt task_prompts",
        "corpus": "corpus_texts encode_documents foundation_documents",
        "grammar": "task_grammars",
        "tokenizer": "tokenizer_hashes train_tokenizer",
        "batching": "Batching training_data",
    },
)
