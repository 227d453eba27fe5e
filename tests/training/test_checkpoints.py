import warnings

import orbax.checkpoint as ocp
import pytest

from nblib.training.checkpoints import (
    KEEP,
    ForeignCheckpoint,
    check_resume_from,
    checkpointing_options,
    has_new_steps,
    latest_step,
    prepare_checkpoints,
    write_checksums,
)

IDENTITY = {"lora_rank": 4, "tokenizer": "aa11", "data": {"train": "bb22"}, "levels": (1, 2)}


@pytest.fixture
def folder(tmp_path):
    """A run's checkpoints at steps 3, 6 and 9, whole and with checksums."""
    steps = prepare_checkpoints(tmp_path, IDENTITY)
    for step in (3, 6, 9):
        save(steps, step)
    write_checksums(tmp_path)
    return tmp_path


def save(steps, step):
    for name in ("model_params/d/data", "optimizer_state/d/data", "_CHECKPOINT_METADATA"):
        path = steps / str(step) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{name} at {step}".encode())


def step_names(folder):
    return sorted(path.name for path in (folder / "actor").iterdir())


def test_whole_checkpoints_are_used_without_a_word(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert prepare_checkpoints(folder, IDENTITY) == folder / "actor"
    assert step_names(folder) == ["3", "6", "9"]
    assert latest_step(folder) == 9


def test_new_folder_is_claimed(tmp_path):
    steps = prepare_checkpoints(tmp_path / "new", IDENTITY)
    assert list(steps.iterdir()) == []
    assert latest_step(tmp_path / "new") == 0
    with pytest.raises(ForeignCheckpoint, match="lora_rank"):
        prepare_checkpoints(tmp_path / "new", {**IDENTITY, "lora_rank": 8})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lora_rank": 8}, r"\(lora_rank: checkpoint 4, this run 8\)"),
        ({"tokenizer": "cc33"}, r"\(tokenizer: checkpoint 'aa11', this run 'cc33'\)"),
        ({"data": {"train": "dd44"}}, r"\(data: checkpoint .*'bb22'.* this run .*'dd44'.*\)"),
        ({"seed": 1}, r"\(seed: checkpoint None, this run 1\)"),
    ],
)
def test_checkpoints_of_other_parameters_are_refused_by_name(folder, change, message):
    with pytest.raises(ForeignCheckpoint, match=message):
        prepare_checkpoints(folder, {**IDENTITY, **change})
    assert step_names(folder) == ["3", "6", "9"]  # and left as they are
    assert latest_step(folder) == 9


def test_all_that_differs_is_named(folder):
    with pytest.raises(ForeignCheckpoint, match=r"lora_rank: .*; tokenizer: "):
        prepare_checkpoints(folder, {**IDENTITY, "lora_rank": 8, "tokenizer": "cc33"})


def test_checkpoints_without_an_identity_are_refused(folder):
    (folder / "identity.json").unlink()
    with pytest.raises(ForeignCheckpoint, match=r"without identity\.json: not ours"):
        prepare_checkpoints(folder, IDENTITY)


def one_byte_changed(step):
    path = step / "model_params" / "d" / "data"
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)
    return "model_params/d/data changed"


def truncated(step):
    path = step / "optimizer_state" / "d" / "data"
    path.write_bytes(path.read_bytes()[:-1])
    return "optimizer_state/d/data changed"


def file_deleted(step):
    (step / "_CHECKPOINT_METADATA").unlink()
    return "_CHECKPOINT_METADATA changed or missing"


def file_added(step):
    (step / "stray").write_text("from elsewhere")
    return "stray changed"


def without_checksums(step):
    (step.parents[1] / "seals" / f"{step.name}.json").unlink()
    return "no checksums"


DAMAGES = (one_byte_changed, truncated, file_deleted, file_added, without_checksums)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_newest_is_set_aside_and_the_one_before_is_used(folder, damage):
    problem = damage(folder / "actor" / "9")
    assert latest_step(folder) == 6
    with pytest.warns(UserWarning, match=rf"checkpoint 9 .* is damaged \({problem}.*damaged-9;"):
        prepare_checkpoints(folder, IDENTITY)
    assert step_names(folder) == ["3", "6"]
    assert (folder / "damaged-9").is_dir()
    assert latest_step(folder) == 6


def test_two_damaged_ones(folder):
    for step in ("9", "6"):
        one_byte_changed(folder / "actor" / step)
    with pytest.warns(UserWarning, match="is damaged") as seen:
        prepare_checkpoints(folder, IDENTITY)
    assert len(seen) == 2
    assert step_names(folder) == ["3"]
    assert {path.name for path in folder.glob("damaged-*")} == {"damaged-6", "damaged-9"}


def test_checksums_do_not_speak_for_a_later_checkpoint_of_their_step(folder):
    one_byte_changed(folder / "actor" / "9")
    with pytest.warns(UserWarning, match="is damaged"):
        prepare_checkpoints(folder, IDENTITY)
    assert not has_new_steps(folder)
    save(folder / "actor", 9)
    assert has_new_steps(folder)
    assert latest_step(folder) == 6
    write_checksums(folder)
    assert not has_new_steps(folder)
    assert latest_step(folder) == 9


def test_another_run_begins_from_the_newest_whole_checkpoint(folder, tmp_path_factory, capsys):
    one_byte_changed(folder / "actor" / "9")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    other, slower = tmp_path_factory.mktemp("other"), {**IDENTITY, "learning_rate": 0.1}
    for _ in range(2):
        steps = prepare_checkpoints(other, slower, resume_from=str(folder))
        assert latest_step(other) == 6 and step_names(other) == ["6"]
    assert capsys.readouterr().out == f"going on from step 6 of {folder}\n"
    assert (steps / "6" / "model_params" / "d" / "data").read_bytes() == b"model_params/d/data at 6"
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    prepare_checkpoints(other, slower)  # its own identity
    save(steps, 7)
    write_checksums(other)
    prepare_checkpoints(other, slower, resume_from=str(folder))
    assert latest_step(other) == 7  # what it has itself goes first


def test_what_the_saved_state_depends_on_must_agree(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    changed = {**IDENTITY, "lora_rank": 8, "learning_rate": 0.1}
    with pytest.raises(ForeignCheckpoint, match=r"with these parameters \(lora_rank: [^;]*\)"):
        prepare_checkpoints(other, changed, resume_from=str(folder))
    assert step_names(other) == []


def test_a_checkpoint_of_another_rope_factor_is_not_gone_on_from(folder, tmp_path_factory):
    """It is in no weight, so it would load without a word."""
    other, message = tmp_path_factory.mktemp("other"), r"\(rope_factor: checkpoint None, this run 4"
    with pytest.raises(ForeignCheckpoint, match=message):
        prepare_checkpoints(other, {**IDENTITY, "rope_factor": 4.0}, resume_from=str(folder))
    assert step_names(other) == []


def test_a_folder_to_resume_from_holds_a_whole_checkpoint(folder, tmp_path_factory):
    assert check_resume_from("") == ""
    assert check_resume_from(str(folder)) == str(folder)
    empty = str(tmp_path_factory.mktemp("empty"))
    for wrong in (empty, f"{empty}/none", str(folder / "actor")):
        with pytest.raises(ValueError, match=f"RESUME_FROM '{wrong}' holds no whole checkpoint"):
            check_resume_from(wrong)


def test_name_that_the_warning_gives_exists(folder):
    (folder / "damaged-9").mkdir()
    one_byte_changed(folder / "actor" / "9")
    with pytest.warns(UserWarning, match="set aside as damaged-9-1;"):
        prepare_checkpoints(folder, IDENTITY)
    assert (folder / "damaged-9-1" / "_CHECKPOINT_METADATA").is_file()


def test_checksums_of_rotated_away_checkpoints_are_dropped(folder):
    for path in sorted((folder / "actor" / "3").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (folder / "actor" / "3").rmdir()
    write_checksums(folder)
    assert sorted(path.name for path in (folder / "seals").iterdir()) == ["6.json", "9.json"]


def test_unfinished_save_is_no_checkpoint(folder):
    (folder / "actor" / "12.orbax-checkpoint-tmp-1").mkdir()
    assert latest_step(folder) == 9
    write_checksums(folder)
    assert sorted(path.stem for path in (folder / "seals").iterdir()) == ["3", "6", "9"]


@pytest.mark.parametrize("interval", ["10 steps", "1 step"])
def test_interval_in_steps(interval):
    options = checkpointing_options(interval)
    policy = options.save_decision_policy
    assert policy == ocp.checkpoint_managers.FixedIntervalPolicy(int(interval.split()[0]))
    assert options.max_to_keep == KEEP
    assert not options.enable_async_checkpointing


def test_interval_in_minutes():
    policy = checkpointing_options("30 min").save_decision_policy
    assert policy == ocp.checkpoint_managers.ContinuousCheckpointingPolicy(
        minimum_interval_secs=1800
    )


@pytest.mark.parametrize(
    "interval",
    ["", "10", "steps", "0 steps", "0 min", "-1 steps", "1.5 min", "30 minutes", "10steps"],
)
def test_other_intervals_are_refused(interval):
    with pytest.raises(ValueError, match=r"expected for example '10 steps' or '30 min'"):
        checkpointing_options(interval)
