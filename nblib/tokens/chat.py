"""The only chat template: Gemma 3's turns, with the system prompt at the head of the user's turn.

Gemma has no system role; its own template puts the system text there too
(https://ai.google.dev/gemma/docs/core/prompt-structure).
"""

from collections.abc import Sequence

from nblib.tasks.task import Example, Task
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


def task_prompts(task: Task, examples: Sequence[Example]) -> list[str]:
    """Return each example's prompt, as the task's answer format asks."""
    system_prompt = task.answer_format.system_prompt
    return [render_prompt(example.question, system_prompt=system_prompt) for example in examples]
