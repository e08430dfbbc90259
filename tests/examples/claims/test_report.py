"""The page: what it says of records, and that the one in docs/ is that of the results."""

import re

import figures
import numpy as np
import pytest
import report
from claim import claims
from settings import Run
from store import Results
from tiny_runs import CLAIMS
from training import packed
from verdicts import Records

ROOT = CLAIMS.parents[1]
KNOWN = claims()


def made(settings, seed, error, random):
    """A record as training.py makes it, with drawn numbers."""
    steps, epochs = [98, 196, 294, 392, 490], [1.0, 2.0]
    wrong = random.random(1000) < error
    colors = {
        f"conv1{t}.weight": {"color": [0.1, 0.6], "shape": [2, 3, 2, 2], "int8": "AAECAwQFBgcICQoLDA0ODwABAgMEBQYH"}
        for t in "ab"
    }
    return {
        "run": Run(settings, seed, "f").identity,
        "settings": settings.declared(),
        "seed": seed,
        "data": {"name": "some images", "fingerprint": "f", "test_images": 1000},
        "versions": {"python": "3"},
        "machine": {"processor": "P"},
        "diverged": None,
        "reached": 490 if settings.until else None,
        "steps": 490,
        "seconds": 60.0,
        "train": {"step": steps, "loss": [1.0] * 5, "error": [0.7, 0.6, 0.4, 0.3 + 0.01 * seed, 0.2]},
        "test": {"epoch": epochs, "loss": [1.0] * 2, "error": [0.5, 0.3]},
        "after_drop": [1.0 + 0.1 * random.random() for _ in range(4)],
        "signals": {
            "epoch 1": [["conv1", "conv2d", 1.0, 0.01, 0.1, None, None], ["fc10", "linear", 1.0, 0.1, 0.1, None, None]]
        },
        "final": {"train_error": 0.1, "test_error": float(wrong.mean()), "ten_views_error": float(wrong.mean())},
        "wrong": packed(wrong),
        "wrong_ten_views": packed(wrong),
        "filters": colors,
    }


@pytest.fixture(scope="module")
def drawn():
    """Records of every claim, five seeds; where two arms are compared the first one has 20 % error, the others 30 %."""
    random, records = np.random.default_rng(0), {}
    for claim in KNOWN.values():
        for i, settings in enumerate(claim.arms.values()):
            for seed in range(5):
                record = made(settings, seed, 0.3 if i else 0.2, random)
                records.setdefault(record["run"], record)
    return records


def test_the_page_has_every_claim_with_its_verdict(drawn):
    page = report.page(KNOWN, Records(drawn.values()), {}, "data")
    for name, claim in KNOWN.items():
        assert f"## {claim.title}\n" in page and f"python examples/claims/run.py {name} " in page
    row = next(line for line in page.splitlines() if line.startswith(f"| [{KNOWN['pools'].title}]"))
    assert re.search(r"\| 0.4 points \| \d+\.\d\d \[\d+\.\d\d, \d+\.\d\d\] points \| 5 \|", row)


def test_links_in_the_table_lead_to_the_sections(drawn):
    from test_readme import anchors

    page = report.page(KNOWN, Records(drawn.values()), {}, "data")
    assert set(re.findall(r"\]\(#([^)]*)\)", page)) <= anchors(page)


@pytest.mark.parametrize("name", KNOWN)
def test_every_claim_has_a_figure(drawn, tmp_path, name):
    figures.draw(KNOWN[name], Records(drawn.values()), tmp_path / "x.svg")
    text = (tmp_path / "x.svg").read_text()
    assert all(arm in text for arm in KNOWN[name].arms) or KNOWN[name].curve in ("gradients", "after drop")
    assert len(text) < 150_000


def test_a_figure_is_the_same_file_every_time(drawn, tmp_path):
    for file in ("a.svg", "b.svg"):
        figures.draw(KNOWN["pools"], Records(drawn.values()), tmp_path / file)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_the_program_writes_page_and_figures_elsewhere(drawn, tmp_path):
    results = Results(tmp_path / "results")
    for record in list(drawn.values())[:10]:
        results.add(record)
    assert report.main(["--results", str(tmp_path / "results"), "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "claims.md").read_text()
    assert "10 runs, 0.2 hours of one core (P; python 3)" in page
    for figure in re.findall(r"!\[.*\]\((.*)\)", page):
        assert (tmp_path / "out" / figure).is_file()


def test_without_results_it_says_who_writes_them(tmp_path, capsys):
    assert report.main(["--results", str(tmp_path)]) == 2
    assert "has no results; run.py writes them" in capsys.readouterr().err


def test_what_is_between_the_markers_is_replaced():
    text = f"a\n{report.BEGIN}old\n{report.END}b\n"
    assert report.put_between(text, "new\n") == f"a\n{report.BEGIN}new\n{report.END}b\n"
    with pytest.raises(ValueError, match="must have the lines"):
        report.put_between("a", "new")


# -------------------------------------------------------------------------------------------------- docs/ and the README


@pytest.fixture(scope="module")
def committed():
    return Results(CLAIMS / "results").all()


def test_the_page_in_docs_is_that_of_the_results(committed):
    records = Records(committed.values())
    figures_there = {path.stem: f"figures/claims/{path.name}" for path in (ROOT / "docs/figures/claims").glob("*.svg")}
    with_runs = {n for n, claim in KNOWN.items() if any(records.of(settings) for settings in claim.arms.values())}
    assert figures_there.keys() == with_runs
    expected = report.page(KNOWN, records, figures_there, report.data_in_words(committed.values()))
    assert (ROOT / "docs/claims.md").read_text() == expected, "python examples/claims/report.py writes it"


def test_the_table_in_the_readme_is_that_of_the_results(committed):
    text = (ROOT / "README.md").read_text()
    assert report.put_between(text, report.overview(KNOWN, Records(committed.values()), "docs/claims.md")) == text


def test_lines_of_results_are_short_and_know_their_identity(committed):
    for file in (CLAIMS / "results").glob("*.jsonl"):
        assert max(map(len, file.read_text().splitlines())) < 10_000
    for identity, record in committed.items():
        assert Run(report.Settings(**record["settings"]), record["seed"], record["data"]["fingerprint"]).identity == identity
