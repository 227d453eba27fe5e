"""Problems of a schema by hand: which is reported first, where it is, and in how many words."""

import pytest

from nblib.tasks.json_schema import Schema, SchemaProblem, list_schema, object_schema

TEXT = {"type": "string"}
DAY = object_schema({"day": {"type": "integer", "minimum": 1}, "items": list_schema(TEXT)})
TRIP = Schema(object_schema({"title": TEXT, "days": list_schema(DAY, minItems=1), "notes": TEXT}))
RIGHT = {"title": "Lisbon", "days": [{"day": 1, "items": ["tram"]}], "notes": ""}


@pytest.mark.parametrize(
    ("value", "path", "rule", "said"),
    [
        # In this order: what is missing, what is too much, then the properties in their order.
        ({"days": 5, "more": 1}, "", "required", "'title' is a required property"),
        ({"title": 5, "days": []}, "", "required", "'notes' is a required property"),
        ({**RIGHT, "title": 5, "more": 1}, "", "additionalProperties", "'more' was unexpected"),
        ({"notes": 1, "days": [], "title": 5}, "title", "type", "5 is not of type 'string'"),
        ({**RIGHT, "days": [], "notes": 1}, "days", "minItems", "[] should be non-empty"),
        ({**RIGHT, "notes": 1}, "notes", "type", "1 is not of type 'string'"),
        # The path leads to the place.
        ({**RIGHT, "days": [RIGHT["days"][0], {}]}, "days[1]", "required", "'day' is a required"),
        ({**RIGHT, "days": [{"day": 0, "items": []}]}, "days[0].day", "minimum", "less than"),
        ({**RIGHT, "days": [{"day": 1, "items": ["", 2]}]}, "days[0].items[1]", "type", "2 is not"),
        ({**RIGHT, "days": [{"day": True, "items": []}]}, "days[0].day", "type", "True is not"),
        ([], "", "type", "[] is not of type 'object'"),
        (None, "", "type", "None is not of type 'object'"),
    ],
)
def test_the_first_problem_with_its_place(value, path, rule, said):
    problem = TRIP.problem(value)
    assert (problem.path, problem.rule) == (path, rule)
    assert said in problem.message


def test_a_valid_value_has_no_problem():
    assert TRIP.problem(RIGHT) is None
    assert TRIP.problem({**RIGHT, "days": [{"day": 2.0, "items": []}]}) is None  # JSON's 2
    assert Schema(list_schema(TEXT)).problem([]) is None


def test_the_root_of_a_list_is_in_its_path():
    assert Schema(list_schema(TEXT)).problem(["", 1]) == SchemaProblem(
        path="[1]", rule="type", message="1 is not of type 'string'"
    )


def test_a_long_message_keeps_its_beginning_and_its_end():
    problem = Schema(object_schema({"a": TEXT})).problem({"a": [*range(1000)]})
    assert problem.message.startswith("[0, 1, 2, 3")
    assert problem.message.endswith("998, 999] is not of type 'string'")
    assert "..." in problem.message and len(problem.message) == 163
    for length, shown in ((133, 160), (134, 163), (1000, 163)):  # around it are 27
        problem = Schema({"type": "integer"}).problem("x" * length)
        assert len(problem.message) == shown


@pytest.mark.parametrize(
    "schema", [{"type": "text"}, {"type": 5}, {"required": "a"}, {"minItems": -1}, 5]
)
def test_a_schema_that_is_none_is_an_error(schema):
    with pytest.raises(ValueError, match=r"^no JSON Schema: "):
        Schema(schema)


def test_the_schema_of_an_object_has_exactly_its_properties():
    assert object_schema({"a": TEXT}, title="x") == {
        "type": "object",
        "required": ["a"],
        "additionalProperties": False,
        "properties": {"a": TEXT},
        "title": "x",
    }
