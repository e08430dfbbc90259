"""Make docs/claims.md, its figures and the README's table from the results.

python examples/claims/report.py [--results DIR] [--out DIR]

--out : another folder than docs/; the README is then left alone
"""

import argparse
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "alexnet"))

import checkout  # noqa: F401  before minidl
import figures
from claim import Claim, claims
from measures import FRACTIONS, HEADINGS, MEASURES, Record, chance_of
from settings import Settings
from store import Results
from verdicts import AGAINST, FEWEST, OPEN, PART, SHOWN, Outcome, Records, outcomes, verdict

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results"
BEGIN, END = "<!-- claims: written by examples/claims/report.py -->\n", "<!-- end of claims -->\n"

HEAD = "# The paper's claims, measured"
WHAT = """What the AlexNet paper and its write-ups claim, tested on small networks: each claim has an experiment that
runs on one core of a CPU, in minutes, from seeds. The nets are cuda-convnet's for CIFAR-10 and a narrow AlexNet, in the
format of the 2012 program. [examples/claims](../examples/claims/README.md) has the programs, the declarations and every
run's record; this page is written from the records by `report.py`."""
NUMBERS = """**Numbers.** Errors are in %, differences in percentage points. Brackets hold 95 % intervals, over seeds
and test images, of differences between runs of the same seed: these begin with the same weights where shapes allow, and
see the same batches. The spread is that of the bootstrap, and few seeds get Student's wider intervals: the head of
[resampling.py](../examples/claims/resampling.py) has the formulas. Minutes are one core's, in training alone."""
VERDICTS = f"""**Verdicts.** A comparison holds if its interval lies on the claim's side of 0 (of 1, for a ratio), and
is against the claim if it lies on the other side; it needs {FEWEST} seeds. *{SHOWN}*: all of a claim's comparisons
hold. *{PART}*: some do. *{AGAINST}*: none holds and one is against. *{OPEN}*: all else; then the page says how many
seeds would resolve it, from the spread so far. A published error counts as reached if it lies in or above the interval.
Small nets on small images for a few epochs are not the paper's: a verdict is about what was measured here."""
COPY = "The images of the JPEG copy were made of CIFAR-10's: numbers differ a little from those of the original batches."


def _number(x: float, outcome: Outcome) -> str:
    if outcome.unit == "points":
        return f"{100 * x:.2f}"
    return f"{x:.3g}" if abs(x) < 1000 else f"{x:,.0f}"


def written(outcome: Outcome) -> str:
    """ "0.84 [0.52, 1.17] points"."""
    i = outcome.interval
    if i is None:
        return "no runs yet"
    sign = "at least " if outcome.at_least else ""
    unit = {"points": " %" if outcome.published is not None else " points", "times": " times", "": ""}[outcome.unit]
    bounds = f" [{_number(i.low, outcome)}, {_number(i.high, outcome)}]" if i.seeds > 1 else ""
    return f"{sign}{_number(i.mean, outcome)}{bounds}{unit}"


def _said(outcome: Outcome) -> str:
    """What an outcome means, in a word or two."""
    i = outcome.interval
    if i is None:
        return ""
    if not outcome.judged:
        return "for information"
    if outcome.published is not None and (outcome.holds or outcome.shorter):
        return {1: "reached", -1: "not reached", 0: "not reached in this time"}[outcome.holds]
    if outcome.holds:
        return "holds" if outcome.holds > 0 else "against"
    if i.seeds < FEWEST:
        return f"open: {i.seeds} of {FEWEST} seeds"
    return f"open: about {outcome.needed} seeds would resolve it" if outcome.needed else "open: more seeds would not resolve it"


# ---------------------------------------------------------------------------------------------------------------- tables


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"


def overview(known: dict[str, Claim], records: Records, page: str = "") -> str:
    """The table of the whole; `page` is where the sections are."""
    rows = []
    for claim in known.values():
        found = outcomes(claim, records)
        first = next((o for o in found if o.judged), None)
        ours = written(first) if first else ""
        seeds = str(first.interval.seeds) if first and first.interval else "0"
        rows.append([f"[{claim.title}]({page}#{_anchor(claim.title)})", claim.paper, ours, seeds, f"**{verdict(found)}**"])
    return table(("claim", "the paper", "here", "seeds", "verdict"), rows)


def _lines(text: str) -> str:
    """A paragraph in lines."""
    return textwrap.fill(text, 124, break_long_words=False, break_on_hyphens=False) + "\n\n"


def _anchor(title: str) -> str:
    kept = "".join(c for c in title.lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")


def in_words(settings: Settings) -> str:
    """Settings as they are declared, for the table of arms."""
    declared = settings.declared()
    changes = declared.pop("changes", {})
    words = [f"{key.replace('_', ' ')}{_value(value)}" for key, value in declared.items() if key not in ("net", "data")]
    by_change: dict[str, list[str]] = {}
    for layer, keys in changes.items():
        text = "left out" if keys is None else " ".join(f"{key}={value}" for key, value in keys.items())
        by_change.setdefault(text, []).append(layer)
    words += [f"{' '.join(layers)}: {text}" for text, layers in by_change.items()]
    return "; ".join([f"`{declared['net']}`", *words])


def _value(value: object) -> str:
    if value is True:
        return ""
    return " " + (", ".join(map(str, value)) if isinstance(value, list) else str(value))


def _mean(records: Iterable[Record], measure: str) -> str:
    values = [v for record in records if (v := MEASURES[measure](record)) is not None]
    if not values:
        return ""
    mean = sum(values) / len(values)
    return f"{100 * mean:.1f}" if measure in FRACTIONS else f"{mean:,.4g}"


def arms_table(claim: Claim, records: Records) -> str:
    rows = []
    for name, settings in claim.arms.items():
        found = records.of(settings).values()
        seconds = [record["seconds"] for record in found]
        diverged = sum(record["diverged"] is not None for record in found)
        minutes = f"{sum(seconds) / len(seconds) / 60:.1f}" if seconds else ""
        seeds = f"{len(seconds)}" + (f", {diverged} diverged" if diverged else "")
        rows.append([name, in_words(settings), *(_mean(found, measure) for measure in claim.shown), minutes, seeds])
    return table(("arm", "settings", *(HEADINGS[measure] for measure in claim.shown), "minutes", "seeds"), rows)


def section(name: str, claim: Claim, records: Records, figure: str | None) -> str:
    found = outcomes(claim, records)
    data = "--photographs PHOTOS" if all(s.data == "photographs" for s in claim.arms.values()) else "--data CIFAR10"
    data += " --photographs PHOTOS" if len({s.data for s in claim.arms.values()}) > 1 else ""
    text = f"## {claim.title}\n\n"
    where = f"section {claim.section}" if claim.section[0].isdigit() else claim.section
    text += _lines(f"*There* ({where}): {claim.says}. *Figure there:* {claim.paper}.")
    text += _lines(f"*What differs here:* {claim.differs}.") + f"**Verdict: {verdict(found)}.**\n\n"
    if found:
        rows = [[o.words, written(o), str(o.interval.seeds) if o.interval else "0", _said(o)] for o in found]
        text += table(("compared", "here", "seeds", ""), rows)
    text += _lines(claim.remark) if claim.remark else ""
    text += _chances(claim, records)
    text += f"![{claim.title}]({figure})\n\n" if figure else ""
    text += arms_table(claim, records)
    return text + f"```sh\npython examples/claims/run.py {name} {data}\n```\n\n"


def _chances(claim: Claim, records: Records) -> str:
    """Of a claim about the towers' colours: how often chance does as well, run by run."""
    if claim.curve != "colors":
        return ""
    rows = []
    for arm, settings in claim.arms.items():
        chances = [c for record in records.of(settings).values() if (c := chance_of(record)) is not None]
        rows.append([arm, ", ".join(f"{c:.2f}" for c in chances), str(sum(c < 0.05 for c in chances))])
    lead = (
        "The share of random pairs of towers, made of a run's own filters, that are as far apart as its towers, run by run:\n\n"
    )
    return lead + table(("arm", "share", "runs below 0.05"), rows)


def page(known: dict[str, Claim], records: Records, drawn: dict[str, str], data: str) -> str:
    text = "".join(map(_lines, (HEAD, WHAT, data, NUMBERS, VERDICTS))) + overview(known, records)
    text += "".join(section(name, claim, records, drawn.get(name)) for name, claim in known.items())
    return text.rstrip("\n") + "\n"


def data_in_words(records: Iterable[Record]) -> str:
    """What the results are from: data sets, versions, processors."""
    records = list(records)
    names = sorted({f"{r['data']['name']} (fingerprint {r['data']['fingerprint']})" for r in records})
    versions = sorted({", ".join(f"{k} {v}" for k, v in r["versions"].items()) for r in records})
    processors = sorted({r["machine"]["processor"] for r in records})
    hours = sum(r["seconds"] for r in records) / 3600
    copy = f" {COPY}" if any("JPEG" in name for name in names) else ""
    return (
        f"**Data.** {'; '.join(names)}.{copy} {len(records)} runs, {hours:.1f} hours of one core ({', '.join(processors)}; "
        f"{'; '.join(versions)})."
    )


def put_between(text: str, new: str) -> str:
    """The text with what is between the two markers replaced. ValueError: the markers are not there."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"must have the lines {BEGIN.strip()} and {END.strip()}")
    return before + BEGIN + new + END + after


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="report.py", description="Write docs/claims.md from the results.")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--out", type=Path, metavar="DIR", help="instead of docs/; the README is left alone then")
    args = parser.parse_args(argv)
    known, all_records = claims(), Results(args.results).all()
    if not all_records:
        print(f"report.py: {args.results} has no results; run.py writes them", file=sys.stderr)
        return 2
    records, out = Records(all_records.values()), args.out or ROOT / "docs"
    drawn = figures.draw_all(known, records, out / "figures" / "claims")
    (out / "claims.md").write_text(page(known, records, drawn, data_in_words(all_records.values())))
    if args.out is None:
        readme = ROOT / "README.md"
        readme.write_text(put_between(readme.read_text(), overview(known, records, "docs/claims.md")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
