"""The page that people forward: safe with any text, the same each time, honest."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scipy.stats import binomtest

from stages import report
from stages.errors import UserError
from stages.reporting import text
from stages.tasks import classification
from tests import fabricate

ROOT = Path(__file__).parent.parent
RUN = SimpleNamespace(task=classification)
VOID = {"meta", "wbr"}
DRAWN = {"svg", "line", "path", "circle", "rect", "text", "g"}
LAID = "html head title style body header nav a main section div p span strong b bdi small code"
FLOW = "h1 h2 h3 ul ol li dl dt dd figure table thead tbody tr th td footer"
ALLOWED = VOID | DRAWN | {*LAID.split(), *FLOW.split()}


class Page(HTMLParser):
    """Fails on a tag that is not ours or not closed; keeps text by its innermost tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ALLOWED, tag
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in DRAWN, tag
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag not in {"b", "bdi", "strong", "code"}:
            self.texts.append((tag, " "))

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"comment: {data}")

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    @property
    def words(self) -> str:
        shown = "".join(data for tag, data in self.texts if tag not in {"style", "title"})
        return " ".join(shown.split())


def make(folder: Path, title: str = "A report", **options: Any) -> Page:
    fabricate.write(folder, **options)
    return render(folder, title)


def render(folder: Path, title: str = "A report") -> Page:
    there = Path.cwd()
    os.chdir(folder)
    try:
        report.run(report.Report(title=title), RUN)  # type: ignore[arg-type]
    finally:
        os.chdir(there)
    return Page((folder / report.OUTPUT).read_text(encoding="utf-8"))


def change(folder: Path, path: str, **values: Any) -> None:
    file = folder / path
    file.write_text(json.dumps(json.loads(file.read_text()) | values), encoding="utf-8")


def test_says_what_no_model_learns(tmp_path: Path) -> None:
    words = make(tmp_path).words
    assert "Targets that" not in words and "Rows are cut after 128 tokens" in words
    splits = json.loads((tmp_path / "results/tokens.json").read_text())["splits"]
    for name, lost in zip(splits, (0, 3, 12), strict=True):
        splits[name] |= {"lost_targets": lost, "cut_prompts": 0}
    change(tmp_path, "results/tokens.json", splits=splits)
    words = render(tmp_path).words
    told = ", ".join(f"{lost} ({name})" for name, lost in zip(splits, (0, 3, 12), strict=True))
    assert f"Targets that no token or window holds, which count as missed: {told}." in words
    assert "Prompts cut at their beginning: none." in words


def test_says_how_much_was_trained(tmp_path: Path) -> None:
    fabricate.write(tmp_path)
    about = {"trained_parameters": 338_690, "parameters_total": 23_052_676, "stored_bytes": 1354760}
    change(tmp_path, "results/training.json", **about)
    words = render(tmp_path).words
    assert "338,690of 23,052,676 (1.47%)" in words and "1.355 MB" in words


def test_says_what_matters(tmp_path: Path) -> None:
    words = make(tmp_path, title="Reviews & more").words
    for fact in (
        "Reviews & more",
        "0.842",
        "95% interval 0.808 to 0.873",
        "480 rows, test split",
        "TF-IDF + logistic regression 0.777 (0.738 to 0.801)",
        "majority class 0.502 (0.458 to 0.546)",
        "empty text 12",
        "exact duplicate 19",
        "best epoch 3",
        "22,713,986",
        "2,000 samples, seed 0",
        "53 0.631 0.520 0.771 0.770",
        "float32, 2 threads, avx512",
        "finetune.learning_rate 0.0001",
        "torch 2.13.0 finetune, evaluate",
        "ab" * 32,
    ):
        assert fact in words, fact


@pytest.mark.parametrize("number", [2, 6, 77, 100])
def test_hostile_text_stays_text(tmp_path: Path, number: int) -> None:
    """The parser refuses any tag that is not ours, and any that is not closed."""
    page = make(tmp_path, title=fabricate.HOSTILE[0], number=number, hostile=True)
    assert fabricate.HOSTILE[0] in page.words
    assert "{{ 7 * 7 }}" in page.words
    assert "\x00" not in page.words and "a\ufffdnull" in page.words
    assert "The first part of 5,000 characters." in page.words


def test_right_to_left_text_is_isolated(tmp_path: Path) -> None:
    """Each user's text has an element of its own: <bdi>, or a paragraph with dir="auto"."""
    make(tmp_path, hostile=True)
    html = (tmp_path / report.OUTPUT).read_text(encoding="utf-8")
    openings = re.findall(r"(<[^<>]*>)[^<>]*שלום", html)
    assert len(openings) > 5
    assert set(openings) <= {"<bdi>", '<p class="quote" dir="auto">'}


@pytest.mark.parametrize("number", [2, 77])
def test_loads_nothing_and_runs_nothing(tmp_path: Path, number: int) -> None:
    page = make(tmp_path, number=number, hostile=True)
    for tag, name, value in page.attributes:
        assert name not in {"src", "srcset", "data", "action", "poster"}, (tag, name)
        assert not name.startswith("on"), (tag, name)
        assert "url(" not in value and "//" not in value, (tag, name, value)
        if "href" in name:
            assert value.startswith("#")
    style = "".join(data for tag, data in page.texts if tag == "style")
    assert "url(" not in style and "@import" not in style


def test_links_lead_somewhere(tmp_path: Path) -> None:
    page = make(tmp_path)
    ids = {value for _, name, value in page.attributes if name == "id"}
    assert {value[1:] for _, name, value in page.attributes if name == "href"} <= ids


def test_same_bytes_in_any_process_and_folder(tmp_path: Path) -> None:
    """And neither torch nor scikit-learn is loaded on the way."""
    code = (
        "import sys; from types import SimpleNamespace as Run; from stages import report; "
        "from stages.tasks import classification; "
        "report.run(report.Report(title='x'), Run(task=classification)); "
        "sys.exit(bool({'torch', 'sklearn', 'matplotlib', 'transformers'} & set(sys.modules)))"
    )
    pages = []
    for name, seed in (("one", "1"), ("a longer name", "2")):
        folder = tmp_path / name
        fabricate.write(folder, number=77, hostile=True)
        variables = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT), "TZ": name}
        subprocess.run([sys.executable, "-c", code], cwd=folder, env=variables, check=True)
        pages.append((folder / report.OUTPUT).read_bytes())
    assert pages[0] == pages[1]


@pytest.mark.parametrize("number", [2, 77, 100, 190])
def test_stays_small_enough_to_send(tmp_path: Path, number: int) -> None:
    make(tmp_path, number=number, hostile=True)
    assert (tmp_path / report.OUTPUT).stat().st_size < 1_000_000


@pytest.mark.parametrize(
    ("only", "verdict", "difference", "meaning"),
    [
        ((60, 25), "Better than the best baseline.", "+0.073", "which excludes 0"),
        ((30, 25), "Not shown to be better than the best baseline.", "+0.010", "which includes 0"),
        ((25, 30), "Not shown to be better than the best baseline.", "−0.010", "which includes 0"),
        ((0, 0), "Not shown to be better than the best baseline.", "+0.000", "which includes 0"),
        ((5, 60), "Worse than the best baseline.", "−0.115", "which excludes 0"),
    ],
)
def test_verdict(
    tmp_path: Path, only: tuple[int, int], verdict: str, difference: str, meaning: str
) -> None:
    """In words, with the numbers that it rests on; p by scipy."""
    words = make(tmp_path, only=only).words
    p = binomtest(only[0], sum(only)).pvalue if sum(only) else 1.0
    assert verdict in words
    assert (
        "Accuracy 0.842 (0.808 to 0.873) against 0.777 (0.738 to 0.801) of TF-IDF + logistic "
        f"regression. On the same rows the difference is {difference}, its 95% interval" in words
    )
    assert f"(paired bootstrap), {meaning}" in words
    assert f"model alone predicts rightly: {only[0]}; the baseline alone: {only[1]} (" in words
    assert ("p < 0.001" if p < 0.001 else f"p = {p:.3f}") in words


def test_verdict_compares_like_with_like_only(tmp_path: Path) -> None:
    make(tmp_path)
    change(tmp_path, "results/baseline.json", rows=479)
    words = render(tmp_path).words
    assert "Not compared with the best baseline." in words
    assert "480 rows of the test split, the baselines on 479 rows" in words
    assert "same rows" not in words


def test_without_optional_values(tmp_path: Path) -> None:
    make(tmp_path)
    change(tmp_path, "results/base.json", revision=None, license=None)
    change(tmp_path, "results/data.json", rejected={}, notes=[], regime=None, characters=None)
    change(tmp_path, "results/details.json", tables=[], matrices=[])
    change(tmp_path, "results/training.json", best_epoch=None, padding_share=None, device_class={})
    change(tmp_path, "results/baseline.json", baselines={})
    missing = {"accuracy": {"value": None, "low": None, "high": None}}
    change(tmp_path, "results/metrics.json", metrics=missing)
    (tmp_path / "results/learning_curve.csv").write_text("epoch,step,train_loss\n1,5,nan\n2,9\n")
    words = render(tmp_path).words
    assert "No row was rejected." in words
    assert "No baseline to compare with." in words
    assert "no 95% interval" in words
    assert "licence: not stated" in words
    assert not re.search(r"\b(None|nan)\b", words)


def test_the_worst_mistakes_come_first(tmp_path: Path) -> None:
    import pandas as pd

    make(tmp_path)
    rows = pd.read_parquet(tmp_path / "results/predictions.parquet")
    wrong = rows[rows["label"] != rows["predicted"]]
    worst = wrong.loc[wrong["scores"].map(max).sort_values(ascending=False).index[:10]]
    words = render(tmp_path).words
    assert f"{len(wrong)} of 480 rows" in words
    facts = re.findall(r"predicted (\w+) labelled (\w+) confidence ([\d.]+) line (\d+)", words)
    assert [int(line) for *_, line in facts] == list(worst["line"])
    assert [label for _, label, *_ in facts] == list(worst["label"])


def test_verdict_needs_the_same_rows(tmp_path: Path) -> None:
    """As many rows, but not the same: a baseline of an older split."""
    import pandas as pd

    make(tmp_path)
    path = tmp_path / "results/baseline.parquet"
    rows = pd.read_parquet(path)
    rows.assign(id=rows["id"].replace(rows["id"][0], "another")).to_parquet(path)
    words = render(tmp_path).words
    assert "The predictions are not of the same rows; run `dvc repro`" in words
    assert "Better" not in words and "All models are measured on the same rows" not in words


def test_all_metrics_with_the_sense_and_the_reason(tmp_path: Path) -> None:
    words = make(tmp_path).words
    assert "MCC fine-tuned 0.680 (0.610 to 0.740)" in words
    assert "Log loss (lower is better) fine-tuned 0.410" in words
    assert "Expected calibration error (lower is better)" in words
    assert "PR AUC (undefined on these rows) fine-tuned –" in words


def test_slices_have_rows_and_intervals(tmp_path: Path) -> None:
    content = fabricate.write(tmp_path)
    domain, author, _ = content["results/details.json"]["slices"]
    words = render(tmp_path).words
    for part in domain["rows"]:
        shown = [text.interval(part["metrics"][name]) for name in ("accuracy", "macro_f1")]
        assert " ".join([part["name"], str(part["rows"]), *shown]) in words
    lowest = sorted(author["rows"], key=lambda part: part["metrics"]["accuracy"]["value"])
    assert "The 30 slices where accuracy is lowest, of 41" in words
    named = {part["name"] for part in author["rows"] if f"{part['name']} " in words}
    assert named == {part["name"] for part in lowest[:30]}


def test_reliability_is_a_figure_and_a_table(tmp_path: Path) -> None:
    content = fabricate.write(tmp_path)
    (curve,) = content["results/details.json"]["curves"]
    page = render(tmp_path)
    for point in curve["points"]:
        assert f"{point['x']:.3f} {point['rows']} {text.interval(point['y'])}" in page.words
    html = (tmp_path / report.OUTPUT).read_text(encoding="utf-8")
    figure = html[html.index('<svg class="chart square"') :].partition("</svg>")[0]
    places = re.findall(r'<circle [^>]*cx="([\d.]+)" cy="([\d.]+)"', figure)
    assert len(set(places)) == len(curve["points"])
    assert all(0 < float(end) < 320 for place in places for end in place)


def test_no_mistake_at_all(tmp_path: Path) -> None:
    import pandas as pd

    make(tmp_path)
    path = tmp_path / "results/predictions.parquet"
    rows = pd.read_parquet(path)
    rows["label"] = rows["predicted"]
    rows.to_parquet(path)
    assert "all 480 rows are predicted rightly" in render(tmp_path).words


def test_many_labels_are_a_picture_and_a_list(tmp_path: Path) -> None:
    content = fabricate.write(tmp_path, number=77)
    (matrix,) = content["results/details.json"]["matrices"]
    names, values = matrix["labels"], matrix["values"]
    most = max(values[i][j] for i in range(77) for j in range(77) if i != j)
    first = next((i, j) for i in range(77) for j in range(77) if i != j and values[i][j] == most)
    page = render(tmp_path)
    start = page.words.index("share of the true label")
    assert page.words[start:].startswith(
        f"share of the true label {names[first[0]]} {names[first[1]]} {most} "
    )
    path = "".join(v for tag, name, v in page.attributes if (tag, name) == ("path", "d"))
    assert path.count("v10h-10z") == sum(value > 0 for row in values for value in row)


def test_few_labels_are_a_table_with_every_number(tmp_path: Path) -> None:
    content = fabricate.write(tmp_path, number=6)
    (matrix,) = content["results/details.json"]["matrices"]
    words = render(tmp_path).words
    for label, row in zip(matrix["labels"], matrix["values"], strict=True):
        assert " ".join([label, *map(str, row)]) in words


def test_too_many_labels_for_a_picture(tmp_path: Path) -> None:
    words = make(tmp_path, number=101).words
    assert "101 labels are too many for a picture." in words
    assert "Most frequent confusions" in words


def test_all_missing_files_are_named_at_once(tmp_path: Path) -> None:
    fabricate.write(tmp_path)
    for name in ("metrics.json", "tokens.json", "learning_curve.csv"):
        (tmp_path / "results" / name).unlink()
    with pytest.raises(UserError) as caught:
        render(tmp_path)
    assert [line.partition(":")[0] for line in caught.value.problems] == [
        "results/tokens.json",
        "results/metrics.json",
        "results/learning_curve.csv",
    ]
    assert not (tmp_path / report.OUTPUT).exists()
