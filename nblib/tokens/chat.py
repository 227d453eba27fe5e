"""The only chat template: Gemma 3's turns, with the system prompt at the head of the user's turn.

Gemma has no system role; its own template puts the system text there too
(https://ai.google.dev/gemma/docs/core/prompt-structure).
"""

from collections.abc import Sequence
from typing import Any

import sentencepiece as spm

from nblib.tasks.task import Example, Task
from nblib.tokens.tokenizer import END_OF_TURN, START_OF_TURN

TEMPLATE = (
    f"{START_OF_TURN}user\n{{system_prompt}}{{question}}{END_OF_TURN}\n{START_OF_TURN}model\n"
)
# The same turns as `render_prompt`, in Jinja, for other programs (llama.cpp, transformers).
CHAT_TEMPLATE = (
    "{{ bos_token }}{% set place = namespace(head='') %}{% for message in messages %}"
    "{% if message.role == 'system' %}{% set place.head = message.content + '\n\n' %}{% else %}"
    f"{{{{ '{START_OF_TURN}' + ('model' if message.role == 'assistant' else message.role) + '\n'"
    f" + place.head + message.content + '{END_OF_TURN}\n' }}}}{{% set place.head = '' %}}"
    "{% endif %}{% endfor %}"
    f"{{% if add_generation_prompt %}}{{{{ '{START_OF_TURN}model\n' }}}}{{% endif %}}"
)
# How a question is put: alone; below the prompt that asks for the format, as in training; or below
# that prompt and worked examples as earlier turns.
STYLES = ("question", "format", "few-shot")


def render_prompt(
    question: str, *, system_prompt: str = "", shots: Sequence[tuple[str, str]] = ()
) -> str:
    r"""Return the prompt that ends where the model's turn begins; `shots` are turns before it.

    >>> render_prompt("1 + 1?", system_prompt="Be brief.")
    '<start_of_turn>user\nBe brief.\n\n1 + 1?<end_of_turn>\n<start_of_turn>model\n'
    """
    head = f"{system_prompt}\n\n" if system_prompt else ""
    turns = []
    for asked, answered in shots:
        turns.append(f"{TEMPLATE.format(system_prompt=head, question=asked)}{answered}")
        head = ""
    turns.append(TEMPLATE.format(system_prompt=head, question=question))
    return f"{END_OF_TURN}\n".join(turns)


def task_prompts(
    task: Task,
    examples: Sequence[Example],
    *,
    style: str = "format",
    shots: Sequence[Example] = (),
) -> list[str]:
    """Return each example's prompt in one of the `STYLES`; `shots` are shown in "few-shot" alone.

    Raises ValueError for an unknown style, or "few-shot" without any.
    """
    if style not in STYLES:
        raise ValueError(f"style {style!r} is unknown: expected one of {', '.join(STYLES)}")
    if style == "few-shot" and not shots:
        raise ValueError("style 'few-shot' needs worked examples, got none")
    shown = shots if style == "few-shot" else ()
    turns = [(shot.prompt, shot.completion) for shot in shown]

    def prompt(example: Example) -> str:
        own = task.system_prompt if example.system_prompt is None else example.system_prompt
        system_prompt = "" if style == "question" else own
        return render_prompt(example.prompt, system_prompt=system_prompt, shots=turns)

    return list(map(prompt, examples))


def chat_tokenizer_config(tokenizer: spm.SentencePieceProcessor) -> dict[str, Any]:
    """Return a `tokenizer_config.json`: transformers' chat template then writes our prompts.

    Without it transformers takes ends and padding by Gemma's names, which another tokenizer does
    not have, reads the markers of the chat as text, and knows no template.
    https://huggingface.co/docs/transformers/main_classes/tokenizer
    """
    ends = ("bos", "eos", "pad", "unk")
    named = {
        f"{one}_token": tokenizer.id_to_piece(getattr(tokenizer, f"{one}_id")()) for one in ends
    }
    plain = dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word"), False)
    markers = {tokenizer.piece_to_id(one): one for one in (START_OF_TURN, END_OF_TURN)}
    return {
        "tokenizer_class": "GemmaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        **named,
        "mask_token": None,  # or one would be added, beyond the embedding
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": {
            str(id_): {"content": piece, "special": True, **plain} for id_, piece in markers.items()
        },
        "chat_template": CHAT_TEMPLATE,
    }
