import pytest

from nblib.tools.parameters import ParameterError, declared_parameters, parse_values


def cell(source, tags=("parameters",)):
    return {"metadata": {"tags": list(tags)}, "source": source}


CELL = cell(
    """\
PROFILE = "auto"  # cpu = minutes
NUM_SAMPLES: int = 50
RATE = 0.5
EVAL_AT_END = True
DIFFICULTY_FILTER = [1, 2]
MODEL = None
MAX_LENGTH: int | None = None
NOTE: str | None = None
FOLDER = str()
LEVELS: list[int] = []
REWARDS = {}
"""
)
DECLARED = declared_parameters([cell("X = 1", tags=()), CELL])


def test_each_assignment_of_the_tagged_cell_is_a_parameter():
    types = {name: parameter.types for name, parameter in DECLARED.items()}
    assert types == {
        "PROFILE": (str,),
        "NUM_SAMPLES": (int,),
        "RATE": (float,),
        "EVAL_AT_END": (bool,),
        "DIFFICULTY_FILTER": (list,),
        "MODEL": (),
        "MAX_LENGTH": (int, type(None)),
        "NOTE": (str, type(None)),
        "FOLDER": (),
        "LEVELS": (list,),
        "REWARDS": (dict,),
    }


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("PROFILE", "cpu", "cpu"),
        ("PROFILE", "7", "7"),
        ("PROFILE", "None", "None"),
        ("NUM_SAMPLES", "-1", -1),
        ("RATE", "1", 1.0),
        ("RATE", "3e-4", 3e-4),
        ("EVAL_AT_END", "False", False),
        ("DIFFICULTY_FILTER", "[3, 4]", [3, 4]),
        ("MODEL", "embedded", "embedded"),
        ("MODEL", "3", 3),
        ("MAX_LENGTH", "None", None),
        ("MAX_LENGTH", "512", 512),
        ("NOTE", "None", None),
        ("NOTE", "12", "12"),
        ("FOLDER", "a/b", "a/b"),
        ("LEVELS", "[5]", [5]),
        ("REWARDS", "{'format_accuracy': 0.3}", {"format_accuracy": 0.3}),
    ],
)
def test_text_becomes_a_value_of_the_declared_type(name, text, value):
    (parsed,) = parse_values(DECLARED, {name: text}).values()
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("NUM_SAMPLES", "many", "takes int (default 50), got text: many"),
        ("NUM_SAMPLES", "1.5", "takes int (default 50), got float: 1.5"),
        ("NUM_SAMPLES", "True", "takes int (default 50), got bool: True"),
        ("RATE", "True", "takes float (default 0.5), got bool: True"),
        ("EVAL_AT_END", "1", "takes bool (default True), got int: 1"),
        ("EVAL_AT_END", "false", "takes bool (default True), got text: false"),
        ("DIFFICULTY_FILTER", "(1, 2)", "takes list (default [1, 2]), got tuple: (1, 2)"),
        ("REWARDS", "format=0.3", "takes dict (default {}), got text: format=0.3"),
        ("MAX_LENGTH", "long", "takes int or None (default None), got text: long"),
    ],
)
def test_a_wrong_type_names_both(name, text, said):
    with pytest.raises(ParameterError) as error:
        parse_values(DECLARED, {name: text})
    assert str(error.value) == f"parameter {name} {said}"


def test_an_unknown_name_suggests_the_nearest_and_lists_all():
    with pytest.raises(ParameterError) as error:
        parse_values(DECLARED, {"num_sample": "3"})
    first, second = str(error.value).splitlines()
    assert first == "unknown parameter num_sample; did you mean NUM_SAMPLES?"
    assert second == f"it takes: {', '.join(DECLARED)}"


def test_a_notebook_without_the_tag_is_an_error():
    with pytest.raises(ParameterError, match="no cell is tagged 'parameters'"):
        declared_parameters([cell("X = 1", tags=())])


def test_a_parameters_cell_with_a_magic_is_an_error():
    with pytest.raises(ParameterError, match="no plain Python"):
        declared_parameters([cell("%matplotlib inline\nX = 1")])
