"""The only chat template: Gemma 3's turns, with the system prompt at the head of the user's turn.

Gemma has no system role; its own template puts the system text there too
(https://ai.google.dev/gemma/docs/core/prompt-structure).
"""

from nblib.tokens.tokenizer import END_OF_TURN, START_OF_TURN

TEMPLATE = (
    f"{START_OF_TURN}user\n{{system_prompt}}{{question}}{END_OF_TURN}\n{START_OF_TURN}model\n"
)


def render_prompt(question: str, *, system_prompt: str = "") -> str:
    r"""Return the prompt that ends where the model's turn begins.

    >>> render_prompt("1 + 1?", system_prompt="Be brief.")
    '<start_of_turn>user\nBe brief.\n\n1 + 1?<end_of_turn>\n<start_of_turn>model\n'
    """
    head = f"{system_prompt}\n\n" if system_prompt else ""
    return TEMPLATE.format(system_prompt=head, question=question)
