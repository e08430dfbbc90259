"""The queue: its order, that nothing is done twice, several processes, the budget, the command line; every claim in small."""

import json

import pytest
import queue_of_runs
from claim import Claim, claims
from queue_of_runs import STOPPED, Sets, main, plan
from settings import Run
from store import Results
from tiny_runs import IMAGES, TINY, exit_codes, worker
from training import Training

KNOWN = claims()
SHORT = TINY.but(epochs=1, drops=(), ten_views=False)


@pytest.fixture
def tiny_forms(monkeypatch):
    """Small forms are smaller still."""
    for name, value in (("SMALL_IMAGES", IMAGES), ("SMALL_PHOTOGRAPHS", 8), ("SMALL_EPOCHS", 1), ("SMALL_BATCH", 8)):
        monkeypatch.setattr(queue_of_runs, name, value)


def claim(**arms):
    return Claim("", "", "", "", "", arms, seeds=2)


def three_runs(pictures):
    return [Run(SHORT, seed, pictures.fingerprint, f"seed {seed}") for seed in range(3)]


def lines(tmp_path, net="wide"):
    return [json.loads(line) for line in (tmp_path / "results" / f"{net}.jsonl").read_text().splitlines()]


# ----------------------------------------------------------------------------------------------------------------- order


def test_every_claim_gets_one_seed_before_any_gets_two_and_shared_runs_are_once():
    wanted = {"a": claim(x=TINY, y=TINY.but(rate=2.0)), "b": claim(x=TINY, z=TINY.but(rate=3.0))}
    runs = plan(wanted, None, Sets(None, None, "", (20, 0)), lambda settings: settings)
    assert [run.label for run in runs] == [f"{arm}, seed {seed}" for seed in (0, 1) for arm in ("a: x", "a: y", "b: z")]
    assert len(plan(wanted, 5, Sets(None, None, "", (20, 0)), lambda settings: settings)) == 15


def test_a_claim_whose_data_is_not_there_has_no_runs():
    wanted = {"a": claim(x=TINY.but(data="photographs"), y=TINY)}
    assert [run.label for run in plan(wanted, 1, Sets(None, None, "", (20, 0)), lambda settings: settings)] == ["a: y, seed 0"]


def test_the_queue_begins_with_what_has_the_smallest_place():
    places = [claim.place for claim in KNOWN.values()]
    assert places == sorted(places) and next(iter(KNOWN)) == "baseline"


# ------------------------------------------------------------------------------------------------------------ never twice


def test_what_ended_is_never_done_again(pictures, tmp_path, monkeypatch):
    runs = three_runs(pictures)
    worker(runs[:2], pictures, tmp_path).go()
    begun = []
    worker(runs, pictures, tmp_path, tell=lambda what, run, detail: what == "begins" and begun.append(run.seed)).go()
    assert begun == [2] and [record["seed"] for record in lines(tmp_path)] == [0, 1, 2]


def test_a_run_that_ended_elsewhere_meanwhile_is_not_written_twice(pictures, tmp_path):
    run = three_runs(pictures)[0]
    record = Training(run, pictures, tmp_path).go(lambda: False)
    for _ in range(2):
        Results(tmp_path / "results").add(record)
    assert len(lines(tmp_path)) == 1


def test_a_run_that_another_process_does_is_left_to_it(pictures, tmp_path):
    from filelock import FileLock

    runs = three_runs(pictures)
    folder = tmp_path / "work" / runs[1].identity
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock"):
        worker(runs, pictures, tmp_path).go()
    assert [record["seed"] for record in lines(tmp_path)] == [0, 2]


def test_processes_that_share_a_queue_do_each_run_once(pictures, tmp_path):
    runs = three_runs(pictures)
    assert exit_codes(*[(worker(runs, pictures, tmp_path).go, ())] * 2) == [0, 0]
    assert sorted(record["seed"] for record in lines(tmp_path)) == [0, 1, 2]


def test_a_line_that_was_not_finished_is_done_again(pictures, tmp_path):
    runs = three_runs(pictures)
    worker(runs[:2], pictures, tmp_path).go()
    file = tmp_path / "results" / "wide.jsonl"
    file.write_bytes(file.read_bytes()[:-100])
    assert set(Results(tmp_path / "results").all()) == {runs[0].identity}
    worker(runs, pictures, tmp_path).go()
    assert [record["seed"] for record in lines(tmp_path)] == [0, 1, 2]


@pytest.mark.parametrize("line", ["[1]", "{}", "{"])
def test_a_line_that_is_no_record_is_named(tmp_path, line):
    (tmp_path / "80sec.jsonl").write_text(f'{{"run": "a"}}\n{line}\n')
    with pytest.raises(
        ValueError, match=r"80sec.jsonl:2: must be the record of a run, got '" + line.replace("[", r"\[").replace("{", r"\{")
    ):
        Results(tmp_path).all()


# ------------------------------------------------------------------------------------------------------- the command line


def run_main(tmp_path, *arguments, **others):
    return main([*arguments, "--work", str(tmp_path / "work"), "--results", str(tmp_path / "results")], **others)


def test_a_budget_ends_it_after_a_step_and_the_same_command_goes_on(tiny_forms, tmp_path, capsys):
    """A minute passes with each look at the clock: at the beginning, before each run of 8 steps, after each step."""
    assert run_main(tmp_path, "pools", "--budget", "11", clock=iter(range(0, 10**5, 60)).__next__) == STOPPED
    assert "1 of 2 runs are left; the same command goes on" in capsys.readouterr().out
    assert run_main(tmp_path, "pools") == 0
    assert "begins pools: 2 x 2, seed 0, at 12%" in capsys.readouterr().out
    assert run_main(tmp_path, "pools") == 0 and "begins" not in capsys.readouterr().out
    whole = tmp_path / "whole"
    assert run_main(whole, "pools") == 0
    pairs = zip(lines(tmp_path, "80sec"), lines(whole, "80sec"), strict=True)
    assert all(a | {"seconds": 0} == b | {"seconds": 0} for a, b in pairs)


def test_jobs_are_processes_that_share_the_runs(tiny_forms, tmp_path, capsys):
    assert run_main(tmp_path, "pools", "--jobs", "2") == 0
    assert len(lines(tmp_path, "80sec")) == 2 and "2/2" in capsys.readouterr().out


def test_a_name_that_is_no_claim_is_refused_with_those_that_are(tmp_path, capsys):
    assert run_main(tmp_path, "relu") == 2
    assert "NAME must be one of baseline, relu_tanh_rates, " in capsys.readouterr().err


def test_data_that_is_not_there_is_refused(tmp_path, capsys):
    assert run_main(tmp_path, "pools", "--data", str(tmp_path / "none")) == 2
    assert "none: must be a folder or a tar.gz of CIFAR-10, got nothing by that name" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--seeds", "--jobs"])
def test_none_of_something_is_refused(tmp_path, capsys, flag):
    with pytest.raises(SystemExit):
        run_main(tmp_path, flag, "0")
    assert f"{flag} must be at least 1, got 0" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------- every claim, in small


@pytest.mark.parametrize("name", KNOWN)
def test_every_claim_has_a_small_form_that_runs_and_gives_what_it_compares(tiny_forms, tmp_path, name):
    assert run_main(tmp_path, name) == 0
    records = Results(tmp_path / "results").all().values()
    small = {arm: queue_of_runs.small(settings) for arm, settings in KNOWN[name].arms.items()}
    assert {json.dumps(s.declared()) for s in small.values()} == {json.dumps(r["settings"]) for r in records}
    assert all(record["diverged"] is None for record in records)


def test_the_small_form_keeps_what_the_claim_is_about():
    for claim in KNOWN.values():
        forms = {json.dumps(queue_of_runs.small(s).declared(), sort_keys=True) for s in claim.arms.values()}
        lengths = {(s.epochs, tuple(s.drops)) for s in claim.arms.values()}
        assert len(forms) >= len(claim.arms) - len(lengths) + 1  # arms that differ in nothing but their length become one
