"""When to fine-tune: the statistics and judgements by hand-made numbers, and a study of two by two."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages import __main__, baseline_trial, check, plugins
from stages.errors import UserError
from stages.studying import comparing, figure, findings, outcomes, rules
from stages.studying.comparing import Difference, mean
from stages.studying.outcomes import Study
from tests import project as projects
from tests import running
from tests.project import Project

FILE = "workflow/studies/when_to_finetune/dvc.yaml"
PARAMS = "workflow/studies/when_to_finetune/small.yaml"
T_2 = 4.30265  # 97.5% quantile of Student's t with 2 degrees of freedom, as tables have it


def study(values: dict[str, dict[int, list[float]]], lacking: tuple[int, ...] = ()) -> Study:
    """A study with these accuracies, one for each draw."""
    found: dict[tuple[str, int, int], dict[str, Any]] = {}
    for method, curve in values.items():
        for rows, each in curve.items():
            for draw, value in enumerate(each):
                found[method, rows, draw] = {
                    "main_metric": "accuracy",
                    "test": {"accuracy": value},
                    "rows": {"test": 400},
                    "trained_parameters": 7,
                }
        for rows in lacking:
            found[method, rows, 0] = {"main_metric": "accuracy", "lacking": True, "rows": 600}
    return outcomes.gathered(found)


def about(value: float) -> list[float]:
    """Three draws, of which the higher differ more, so that no two curves are the same apart."""
    spread = 0.001 * (1 + value)
    return [value - spread, value, value + spread]


def test_means_have_student_s_interval() -> None:
    found = mean([0.70, 0.72, 0.77])
    assert found.value == pytest.approx(0.73)
    error = math.sqrt((0.03**2 + 0.01**2 + 0.04**2) / 2 / 3)
    assert found.error == pytest.approx(error)
    assert found.low == pytest.approx(0.73 - T_2 * error, abs=1e-5)
    assert found.high == pytest.approx(0.73 + T_2 * error, abs=1e-5)
    alone = mean([0.7])
    assert alone.value == 0.7 and alone.low is None
    assert not alone.above(0.0) and not alone.below(1.0)


def test_equal_draws_show_nothing() -> None:
    """Differences that are one number but for rounding have no spread to judge by."""
    found = mean([0.62 - 0.6, 0.72 - 0.7, 0.02])
    assert found.error == 0 and found.low == found.high == found.value
    assert not found.above(0.0) and not found.below(1.0)
    assert "+0.020 (in each of 3 runs" in comparing.told(found)
    assert rule(few_and_full([0.7] * 3, [0.6] * 3), "under 50 rows").verdict == "not shown"


def test_differences_are_taken_draw_by_draw() -> None:
    """Draws differ far more than methods do: only in pairs is the second seen to be better."""
    of = study({"few_shot": {16: [0.5, 0.6, 0.7]}, "full": {16: [0.52, 0.62, 0.721]}})
    found = comparing.difference(of, "full", "few_shot", 16)
    assert found.mean.value == pytest.approx(0.061 / 3)
    assert found.mean.above(0.0)
    few, full = (comparing.at(of.curves[name], 16) for name in ("few_shot", "full"))
    assert few.high is not None and full.low is not None and few.high > full.low


def test_the_cheapest_within_one_error_of_the_best() -> None:
    """The best is full, 0.80 with an error of 0.1 / sqrt(3) = 0.058, so from 0.742 up will do."""
    full = [0.70, 0.80, 0.90]
    near, far = [0.75] * 3, [0.74] * 3
    assert comparing.cheapest(study({"a": {16: near}, "full": {16: full}}), 16) == "a"
    assert comparing.cheapest(study({"a": {16: far}, "full": {16: full}}), 16) == "full"
    assert comparing.cheapest(study({"a": {16: far}, "b": {16: near}, "c": {16: full}}), 16) == "b"
    one = study({"a": {16: [0.79]}, "full": {16: [0.80]}})
    assert comparing.cheapest(one, 16) == "full"  # one run has no error


def rule(of: Study, words: str, tolerance: float = 0.02) -> rules.Judgement:
    (found,) = [one for one in rules.judge(of, tolerance) if words in one.rule]
    return found


def few_and_full(few: list[float], full: list[float], rows: int = 16) -> Study:
    return study({"few_shot": {rows: few}, "full": {rows: full}})


@pytest.mark.parametrize(
    ("few", "full", "few_best", "full_best"),
    [
        (about(0.7), about(0.6), "held", "did not hold"),
        (about(0.6), about(0.7), "did not hold", "held"),
        ([0.6, 0.7, 0.8], [0.71, 0.7, 0.68], "not shown", "not shown"),
        ([0.9], [0.5], "not shown", "not shown"),  # one run shows nothing
    ],
)
def test_a_rule_holds_only_where_intervals_show_it(
    few: list[float], full: list[float], few_best: str, full_best: str
) -> None:
    assert rule(few_and_full(few, full), "under 50 rows").verdict == few_best
    assert rule(few_and_full(few, full, 100), "from 100 rows").verdict == full_best


def test_a_rule_must_hold_at_every_size() -> None:
    few, full = {8: about(0.7), 32: about(0.6)}, {8: about(0.5), 32: about(0.65)}
    both = rule(study({"few_shot": few, "full": full}), "under 50 rows")
    assert both.verdict == "did not hold" and len(both.evidence) == 2
    open_at_32 = study({"few_shot": few | {32: [0.6, 0.7, 0.65]}, "full": full})
    assert rule(open_at_32, "under 50 rows").verdict == "not shown"


def test_a_rule_without_what_it_speaks_of_is_not_shown() -> None:
    of = study({"full": {64: about(0.7)}})
    judged = rules.judge(of, 0.02)
    assert len(judged) == 4 and {one.verdict for one in judged} == {"not shown"}
    assert all(one.evidence for one in judged)


@pytest.mark.parametrize(
    ("scratch", "verdict"), [(0.6, "held"), (0.7, "did not hold"), (0.68, "not shown")]
)
def test_from_scratch_is_out_of_reach_beyond_the_tolerance(scratch: float, verdict: str) -> None:
    of = study({"full": {500: [0.695, 0.7, 0.705]}, "from_scratch": {500: [scratch] * 3}})
    assert rule(of, "from scratch is not within 0.02").verdict == verdict


def test_fewer_rows_than_from_scratch_are_compared_across_sizes() -> None:
    full = {16: about(0.60), 100: about(0.72), 500: about(0.80)}
    scratch = {16: about(0.5), 100: about(0.55), 500: about(0.65)}
    found = rule(study({"full": full, "from_scratch": scratch}), "quarter of the rows")
    assert found.verdict == "held"
    assert found.evidence[0].startswith(
        "full with 100 rows against from_scratch with 500 rows +0.07"
    )
    of = study({"full": full, "from_scratch": scratch | {500: about(0.75)}})
    assert rule(of, "quarter of the rows").verdict == "did not hold"


def test_where_curves_cross() -> None:
    """Ahead for good from 100 on by its means; shown from 500. The lead at 16 does not last."""
    of = study(
        {
            "few_shot": {16: about(0.5), 50: about(0.6), 100: [0.60, 0.65, 0.70], 500: about(0.7)},
            "full": {16: about(0.55), 50: about(0.5), 100: [0.66, 0.64, 0.71], 500: about(0.8)},
            "from_scratch": {16: about(0.5), 50: about(0.5), 100: about(0.5), 500: about(0.79)},
        }
    )
    overtakes, reach = rules.crossings(of, 0.02)
    assert (overtakes.by_means, overtakes.shown) == (100, 500)
    assert (reach.by_means, reach.shown) == (500, 500)
    assert rules.crossings(study({"full": {16: about(0.5)}}), 0.02) == []


def test_curves_cross_by_the_sizes_that_both_have() -> None:
    few, full = {16: about(0.5), 100: about(0.5)}, {16: about(0.4), 100: about(0.6)}
    (overtakes,) = rules.crossings(study({"few_shot": few, "full": full | {500: about(0.7)}}), 0.02)
    assert (overtakes.by_means, overtakes.shown) == (100, 100)


@pytest.mark.parametrize(
    ("rows", "size", "said"),
    [
        (10, 16, "Fewer than 16 were not measured"),
        (60, 16, "few_shot, the best"),
        (150, 100, "full, the best"),
        (5000, 100, "far more rows than were measured"),
    ],
)
def test_the_recommendation_is_for_the_rows_at_hand(rows: int, size: int, said: str) -> None:
    of = study(
        {
            "few_shot": {16: about(0.7), 100: about(0.72)},
            "full": {16: about(0.6), 100: about(0.8)},
        }
    )
    found = findings.recommendation(of, rows)
    assert found["measured_at"] == size and said in found["text"]


def test_sizes_that_rows_lack_for_are_said() -> None:
    of = study({"few_shot": {16: about(0.7)}}, lacking=(1000, 5000))
    assert of.sizes == [16] and of.left_out == [1000, 5000]
    assert "fewer rows: 1,000, 5,000." in findings.notes(of)[0]
    with pytest.raises(UserError, match="no size of the study"):
        study({"few_shot": {}}, lacking=(1000,))


def test_a_difference_reads_as_a_sentence() -> None:
    one = Difference("full", "few_shot", 100, 100, mean([0.01, 0.02, 0.03]))
    assert str(one) == "100 rows: full against few_shot +0.020 (−0.005 to +0.045)"


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A tiny project that has run a study of two methods at one size, and at one too large."""
    project = projects.make(tmp_path_factory.mktemp("study"))

    def change(content: Any) -> None:
        content["study"].update(method=["few_shot", "full"], rows=[16, 9000], draw=[0, 1])
        content["training"].update(epochs=1, min_steps=2)

    project.edit(PARAMS, change)
    project("dvc", "repro", FILE)
    project.commit("the study")
    return project


def test_a_study_reports_its_trials(first: Project) -> None:
    results = first.folder / "results/studies"
    found = json.loads((results / "when_to_finetune.json").read_text())
    assert found["sizes"] == [16] and found["left_out"] == [9000]
    for method, curve in found["curves"].items():
        for rows, cell in curve["values"].items():
            files = [results / f"when_to_finetune/{method}-{rows}-{draw}.json" for draw in (0, 1)]
            values = [json.loads(file.read_text())["test"]["accuracy"] for file in files]
            assert cell["each"] == values
            assert cell["value"] == pytest.approx(np.mean(values))
    assert list(found["curves"]) == ["baseline", "few_shot", "full"]
    trial = json.loads((results / "when_to_finetune/full-16-1.json").read_text())
    assert trial["rows"] == {
        "train": 16,
        "validation": trial["rows"]["validation"],
        "test": found["test_rows"],
    }
    assert trial["rows"]["validation"] <= 16 and trial["steps"] == 2
    page = (results / "when_to_finetune.html").read_text()
    assert not re.search(r"(src|href)=", page) and "url(" not in page
    assert found["recommendation"]["text"] in page
    for one in found["rules"]:
        assert one["rule"] in page
    minutes = json.loads((first.folder / "results/run/studies/when_to_finetune.json").read_text())
    assert minutes["full"]["16"] > 0


def test_only_new_trials_of_a_study_run(first: Project) -> None:
    """A size is added, another taken away, by the other engine; the first then has nothing to do.
    What one method alone reads concerns its own trials."""
    first.edit(PARAMS, lambda content: content["study"].update(rows=[16, 40], tolerance=0.05))
    output = first("snakemake", "--cores", "2", "--config", f"pipeline={FILE}")
    assert output.count("> python -m stages trial ") == 4
    assert output.count("> python -m stages baseline_trial ") == 2
    assert first.repro(FILE) == set()
    found = json.loads((first.folder / "results/studies/when_to_finetune.json").read_text())
    assert found["sizes"] == [16, 40]
    assert not found["left_out"]
    for key, value in {"methods.lora.rank": 4, "methods.full.layer_decay": 0.9}.items():
        first.set(key, value)
    status = json.loads(first("dvc", "status", "--json", FILE))
    stale = {f"trial@full-{rows}-{draw}" for rows in (16, 40) for draw in (0, 1)}
    assert {name.rpartition(":")[2] for name in status} == stale


def test_a_method_that_cannot_do_the_task_is_left_out(first: Project) -> None:
    before = (first.folder / "params.yaml").read_text()
    first.set("run.task", "regression")
    trial = ("python", "-m", "stages", "trial", "results/t.json", "run.method=few_shot")
    assert "does not support the task 'regression'" in first(*trial, code=2)
    assert "left out: it compares" in first(*trial, "trial.lacking=skip")
    (first.folder / "params.yaml").write_text(before)
    reason = json.loads((first.folder / "results/t.json").read_text())["refused"]
    outcome: dict[str, Any] = {"main_metric": "r2", "test": {"r2": -0.2}, "rows": {"test": 9}}
    of = outcomes.gathered({("few_shot", 16, 0): {"refused": reason}, ("full", 16, 0): outcome})
    assert list(of.curves) == ["full"] and of.sizes == [16] and not of.left_out
    assert f"Left out: few_shot, for {reason}." in findings.notes(of)
    with pytest.raises(UserError, match=r"study\.method: few_shot: it compares"):
        outcomes.gathered({("few_shot", 16, 0): {"refused": reason}, ("baseline", 16, 0): outcome})


def test_a_method_that_cannot_take_the_base_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study goes on without it; a trial alone is refused."""
    from transformers import DistilBertConfig, DistilBertModel

    monkeypatch.chdir(tmp_path)
    text = "text,label\n" + "".join(
        f"{'good' if i % 2 else 'bad'} {i},{i % 2}\n" for i in range(80)
    )
    running.ready(tmp_path, "classification", text, "x.csv")
    base = Path("data/local_base")
    size = json.loads((base / "config.json").read_text())["vocab_size"]
    sizes = {"vocab_size": size, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32}
    DistilBertModel(DistilBertConfig(pad_token_id=0, **sizes)).save_pretrained(base)
    running.run("fetch_model", "prepare", "tokenize")
    words = ["results/t.json", "run.method=prefix", "trial.rows=8"]
    with pytest.raises(UserError, match=r"run\.method: a base of the kind 'distilbert'"):
        __main__.run_trial("trial", words)
    __main__.run_trial("trial", [*words, "trial.lacking=skip"])
    found = running.json_of("results/t.json")
    assert found["refused"].startswith("a base of the kind 'distilbert' takes no keys")


def test_the_whole_study_has_every_method(first: Project) -> None:
    """By its name in the study's dvc.yaml."""
    pipeline, small = first.folder / FILE, (first.folder / FILE).read_text()
    pipeline.write_text(small.replace("- small.yaml", "- full.yaml"))
    stages = first("dvc", "stage", "list", "--name-only", FILE).split()
    pipeline.write_text(small)
    full = running.loaded((first.folder / FILE).with_name("full.yaml").read_text())["study"]
    assert sorted(full["method"]) == plugins.names("methods")
    due = len(full["rows"]) * len(full["draw"])
    assert len(stages) == due * (len(full["method"]) + 1) + 1


@pytest.mark.parametrize("values", [[-0.3, -0.1], [-0.2, 0.4], [44.0, 51.5], [0.99, 0.2]])
def test_any_metric_has_a_figure(values: list[float]) -> None:
    """The scale encloses all means; of shares it ends at 0 and 1 however wide intervals are."""
    of = study({"full": {size: about(value) for size, value in zip((16, 99), values, strict=True)}})
    drawn = figure.svg(of)
    ticks = [float(text) for text in re.findall(r'text-anchor="end">([-.\d]+)<', drawn)]
    assert min(ticks) <= min(values) and max(ticks) >= max(values)
    if max(values) < 1 and min(values) >= 0:
        assert min(ticks) >= 0 and max(ticks) <= 1


def test_a_baseline_without_the_metric_is_left_out() -> None:
    rows = {"rows": {"test": 9}}
    copied = {"main_metric": "chrf", "test": {"chrf": 9.0}, "baseline": "a copy"} | rows
    trained = {"main_metric": "log_likelihood", "test": {"log_likelihood": -2.0}} | rows
    of = outcomes.gathered({("baseline", 16, 0): copied, ("full", 16, 0): trained})
    assert of.metric == "log_likelihood" and list(of.curves) == ["full"]
    assert any("Left out: a copy, which has no" in note for note in findings.notes(of))


def test_a_baseline_of_written_texts_has_the_metrics_that_it_can_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = [{"instruction": f"say {i}", "input": "", "output": f"{i % 3}"} for i in range(40)]
    text = "".join(json.dumps(line) + "\n" for line in asked)
    running.ready(tmp_path, "generation", text, "rows.jsonl")
    running.run("fetch_model", "prepare")
    params = check.load("params.yaml", {"trial.rows": 8})
    job = baseline_trial.Job(Path("results/t.json"), {}, params.sections["trial"])
    baseline_trial.run(params.sections["baseline"], params.run, job)
    found = running.json_of("results/t.json")["test"]
    assert "chrf" in found and "log_likelihood" not in found


def test_prompt_tuning_that_falls_behind_is_explained() -> None:
    def explained(prompt: float) -> bool:
        of = study({"prompt": {16: about(prompt)}, "full": {16: about(0.8)}})
        return any("billions" in note for note in findings.notes(of))

    assert explained(0.7) and not explained(0.8)


def test_a_baseline_takes_the_rows_of_the_trials(first: Project) -> None:
    code = (
        "from stages.artifacts import read_arrow, read_json, read_parquet; import numpy as np;"
        "from stages import plugins; from stages.training.batching import targets;"
        "rows = read_parquet('data/prepared/train.parquet');"
        "labels = read_json('data/prepared/labels.json');"
        "task = plugins.load('tasks', 'classification');"
        "ids = targets(read_arrow('data/tokenized/train.arrow'));"
        "print(np.array_equal(task.targets(rows, labels), ids))"
    )
    assert first("python", "-c", code).split() == ["True"]


def test_mistakes_of_a_study_are_said(first: Project) -> None:
    study = ("python", "-m", "stages", "study", "results/studies/when_to_finetune")
    words = ("--method", "lora", "--rows", "16", "--draw", "0", "--tolerance", "0.1")
    assert "lora-16-0.json: missing; `dvc repro`" in first(*study, *words, code=2)
    assert "write a share" in first(*study, *words[:-1], "2", code=2)
    trial = ("python", "-m", "stages", "baseline_trial", "results/t.json")
    said = first(*trial, "trial.rows=9000", "trial.draw=0", code=2)
    assert "params.yaml: trial.rows: the training split has" in said
    said = first(*trial, "finetune.seed=1", code=2)
    assert "changes nothing in a trial by the baseline" in said
