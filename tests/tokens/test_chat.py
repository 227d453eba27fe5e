from dataclasses import replace

import pytest

from nblib.tasks.formats import XML
from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.task import Example
from nblib.tokens.chat import (
    CHAT_TEMPLATE,
    TEMPLATE,
    chat_tokenizer_config,
    render_prompt,
    task_prompts,
)


def test_the_template_written_out():
    assert TEMPLATE == (
        "<start_of_turn>user\n{system_prompt}{question}<end_of_turn>\n<start_of_turn>model\n"
    )


def test_without_a_system_prompt():
    assert render_prompt("What is 2 + 2?") == (
        "<start_of_turn>user\nWhat is 2 + 2?<end_of_turn>\n<start_of_turn>model\n"
    )


def test_the_system_prompt_heads_the_users_turn():
    assert render_prompt("What is 2 + 2?", system_prompt=XML.system_prompt) == (
        "<start_of_turn>user\n"
        "Work it out inside <reasoning></reasoning>, then give just the number inside "
        "<answer></answer>.\n"
        "\n"
        "What is 2 + 2?<end_of_turn>\n"
        "<start_of_turn>model\n"
    )


def test_braces_and_ends_of_a_question_stay_as_they_are():
    prompt = render_prompt(" {question} {0} {\n", system_prompt="{system_prompt}")
    assert prompt == (
        "<start_of_turn>user\n{system_prompt}\n\n {question} {0} {\n<end_of_turn>\n"
        "<start_of_turn>model\n"
    )


def test_its_markers_are_five_single_tokens(tokenizer):
    start, end, newline = (
        tokenizer.piece_to_id(p) for p in ("<start_of_turn>", "<end_of_turn>", "\n")
    )
    ids = tokenizer.encode(render_prompt(""))
    words = {w: tokenizer.encode(w) for w in ("user", "model")}
    assert ids == [*(start, *words["user"], newline, end, newline, start, *words["model"], newline)]


EXAMPLES = [
    Example(
        id=question,
        prompt=question,
        completion="<reasoning>\nSo.\n</reasoning>\n<answer>4</answer>",
        reference="4",
    )
    for question in ("2 + 2?", "1 + 3?", "4 + 0?")
]


def test_a_tasks_prompts_ask_in_its_own_format_and_in_order():
    questions = [example.prompt for example in EXAMPLES]
    for task, system_prompt in ((GSM8K, XML.system_prompt), (GSM8K.variants["hash"], "")):
        assert task_prompts(task, EXAMPLES) == [
            render_prompt(question, system_prompt=system_prompt) for question in questions
        ]
    assert task_prompts(GSM8K, []) == []


def test_an_examples_own_system_prompt_stands_in_place_of_the_tasks():
    for own in ("Be brief.", ""):
        asked = [replace(EXAMPLES[0], system_prompt=own)]
        assert task_prompts(GSM8K, asked) == [render_prompt("2 + 2?", system_prompt=own)]
        assert task_prompts(GSM8K, asked, style="question") == [render_prompt("2 + 2?")]


def test_the_question_alone_has_no_system_prompt():
    assert task_prompts(GSM8K, EXAMPLES[:1], style="question") == [render_prompt("2 + 2?")]


def test_few_shot_written_out_the_system_prompt_stands_once():
    (prompt,) = task_prompts(GSM8K, EXAMPLES[:1], style="few-shot", shots=EXAMPLES[1:])
    assert prompt == (
        f"<start_of_turn>user\n{XML.system_prompt}\n\n1 + 3?<end_of_turn>\n"
        "<start_of_turn>model\n<reasoning>\nSo.\n</reasoning>\n<answer>4</answer><end_of_turn>\n"
        "<start_of_turn>user\n4 + 0?<end_of_turn>\n"
        "<start_of_turn>model\n<reasoning>\nSo.\n</reasoning>\n<answer>4</answer><end_of_turn>\n"
        "<start_of_turn>user\n2 + 2?<end_of_turn>\n<start_of_turn>model\n"
    )


def test_shots_are_shown_in_their_own_style_alone():
    assert task_prompts(GSM8K, EXAMPLES, shots=EXAMPLES) == task_prompts(GSM8K, EXAMPLES)


@pytest.mark.parametrize(
    ("style", "message"), [("zero", "'zero' is unknown.*question, format"), ("few-shot", "none")]
)
def test_an_unknown_style_and_few_shot_without_shots_are_refused(style, message):
    with pytest.raises(ValueError, match=message):
        task_prompts(GSM8K, EXAMPLES, style=style)


def test_the_tokenizers_own_pieces_are_the_ends_that_others_read(tokenizer):
    config = chat_tokenizer_config(tokenizer)
    named = {name: config[f"{name}_token"] for name in ("bos", "eos", "pad", "unk", "mask")}
    assert named == {"bos": "<s>", "eos": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": None}
    pieces = {id_: one["content"] for id_, one in config["added_tokens_decoder"].items()}
    assert pieces == {"4": "<start_of_turn>", "5": "<end_of_turn>"}
    assert config["chat_template"] == CHAT_TEMPLATE
