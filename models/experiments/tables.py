"""The tables that are made of the results: all rows and RecBole's models in this directory's README.md, and the short one in the
repository's."""

import json
import sys
from pathlib import Path

from rows import DATA, README, ROWS

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
# The savings at which the table of all rows tells of routed runs.
SAVINGS = (0.60, 0.65, 0.70, 0.80, 0.90)


def write_tables():
    """Puts the tables of every result into README.md here, and the table of models by data set into that of the repository."""
    results = {row: results_of(row) for row in ROWS}
    put(HERE / "README.md", "table", all_rows([result for found in results.values() for result in found]))
    put(HERE / "README.md", "references", all_references())
    put(REPOSITORY / "README.md", "table", models(results))


def results_of(row):
    """Every result of a row: that of its first seed, and those of seeds whose first models were not at hand."""
    files = [file for file in (HERE / f"{row}.json", *sorted(HERE.glob(f"{row}-seed-*.json"))) if file.exists()]
    results = [json.loads(file.read_text()) for file in files]
    seeds = [seed for result in results for seed in result["seeds"]]
    if twice := {seed for seed in seeds if seeds.count(seed) > 1}:
        names = ", ".join(file.name for file in files)
        sys.exit(f"{names}: seed {min(twice)} is in two of these results; remove the one that the other contains, then make experiment ROW=table")
    return results


def put(file, name, lines):
    start, end = f"<!-- {name}: made by tables.py -->\n", f"<!-- end of the {name} -->\n"
    before, rest = file.read_text().split(start, 1)
    after = rest.split(end, 1)[1]
    file.write_text(before + start + "\n".join(lines) + "\n" + end + after)


def all_rows(results):
    lines = [
        "| row | seeds | full | strongest slice | routed, saved | minus static mix | minus static mix of equal time | minus full "
        "| minus strongest | minus random, own frequencies | routes in use | minutes |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        strongest = result["strongest"]
        has_slices = routes_of(result) > 1
        best = f"{told(strongest['test'])}, {100 * strongest['saved']:.0f} % saved" if has_slices else ""
        head = f"| {result['row']} | {len(result['seeds'])} | {told(result['full']['test'])} | {best}"
        minutes = ", ".join(duration(minutes, epochs) for minutes, epochs in zip(result["training_minutes"], epochs_until_limit(result)))
        routed = near(result["routed"]) if has_slices else []
        for place, one in enumerate(routed):
            over = one["over"]
            differences = [difference(over[name]) for name in ("hull", "hull_by_time", "full", "strongest", "matched")]
            cells = [f"{told(one['test'])}, {100 * one['saved']:.0f} %", *differences, f"{one['routes_in_use']:.2g}"]
            start = head if place == 0 else "| | | |"
            lines.append(f"{start} | {' | '.join(cells)} | {minutes if place == 0 else ''} |")
        if not routed:
            lines.append(f"{head} | | | | | | | | {minutes} |")
    return lines


def epochs_until_limit(result):
    """For each training the epochs after which its time limit ended it, or None. Older results lack them: none had a limit."""
    return result.get("cut_short_after") or [None] * len(result["seeds"])


def duration(minutes, cut_short_after):
    return f"{minutes:.0f}" + (f", stopped by a time limit after {cut_short_after} epochs" if cut_short_after else "")


def models(results):
    """For each data set RecBole's SASRec, slices, routed runs and the full model, by their cost."""
    lines = ["| data | model | MFLOP a request | NDCG@10 | minutes of training |", "|---|---|---|---|---|"]
    for shown in README:
        found = results[shown["row"]]
        trainings = sum(len(result["seeds"]) for result in found)
        minutes = [minutes for result in found for minutes in result["training_minutes"]]
        name = shown["name"] + (f", mean of {trainings} trainings" if trainings > 1 else "")
        strongest = {route for result in found for route in result["strongest"]["routes"]}
        rows = [reference(result) for result in references_of(found[0]["data"])]
        for place, slices in enumerate(zip(*(result["slices"] for result in found))):
            route = slices[0]["route"]
            full = place + 1 == len(found[0]["slices"])
            if route in shown["slices"] or full:
                words = f"{'full model' if full else 'slice'} `{route}`{', the strongest' if strongest == {route} else ''}"
                rows.append((slices[0]["mflops"], words, mean([(one["test"], result) for one, result in zip(slices, found)]), ""))
        for budget in shown["budgets"]:
            points = [one for result in found for one in result["routed"] if one["budget"] == budget]
            if len(points) < len(found):
                sys.exit(f"rows.py shows budget {budget} of {shown['row']}, which a training does not reach: name another one")
            saved = average([(one["saved"], result) for one, result in zip(points, found)])
            mflops = (1 - saved) * found[0]["full"]["mflops"]
            accuracy = mean([(one["test"], result) for one, result in zip(points, found)])
            rows.append((mflops, f"routed, budget {100 * budget:.0f} %", accuracy, ""))
        ours = f"{min(minutes):.0f}" if len(minutes) == 1 else f"{min(minutes):.0f} to {max(minutes):.0f}"
        for place, (mflops, words, accuracy, took) in enumerate(sorted(rows, key=lambda row: row[0])):
            lines.append(f"| {'' if place else name} | {words} | {short(mflops)} | {told(accuracy)} | {took or ours} |")
    return lines


def references_of(data):
    """The results of recbole_sasrec.py for a data set."""
    return [json.loads(file.read_text()) for file in sorted(HERE.glob(f"{data}-recbole-*.json"))]


def reference(result):
    words = f"RecBole's SASRec, loss {result['settings']['loss_type']}, {epochs(result)}"
    return result["mflops"], words, result["test"], f"{result['cpu_minutes']:.0f}"


def epochs(result):
    return f"{result['epochs']} epochs{', stopped by a time limit' if result['ended_by'] == 'minutes' else ''}"


def all_references():
    """Every result of recbole_sasrec.py, and what models of canet have more than it."""
    lines = [
        "| data | loss, epochs | CPU minutes | MFLOP a request | validation | test | model of canet | strongest slice minus RecBole's "
        "| routed minus RecBole's | full minus RecBole's |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in (result for data in DATA for result in references_of(data)):
        cells = [
            result["data"], f"{result['settings']['loss_type']}, {epochs(result)}", f"{result['cpu_minutes']:.0f}",
            short(result["mflops"]), told(result["validation"]), told(result["test"]),
        ]
        for other in result["against"] or [None]:
            differences = ["", "", "", ""] if other is None else against(other)
            lines.append(f"| {' | '.join([*cells, *differences])} |")
    return lines


def against(other):
    """The differences from one model of canet."""
    low, high = other["recbole_over_full"]["interval"]
    full = {"mean": -other["recbole_over_full"]["mean"], "interval": [-high, -low]}
    routed = f"{other['routed']['budget'] * 100:.0f} %, {short(other['routed']['mflops'])} MFLOP"
    return [
        f"`{other['model']}`",
        f"`{other['strongest']['route']}`, {short(other['strongest']['mflops'])} MFLOP: {interval(other['strongest_over_recbole'])}",
        f"{routed}: {interval(other['routed_over_recbole'])}",
        f"{short(other['full']['mflops'])} MFLOP: {interval(full)}",
    ]


def mean(values):
    """The mean over the trainings of several results, with the greatest of their standard errors over users."""
    return {"mean": average([(one["mean"], result) for one, result in values]), "se": max(one["se"] or 0 for one, _ in values)}


def average(values):
    """The mean of one figure a result, in which a result counts by its trainings."""
    return sum(one * len(result["seeds"]) for one, result in values) / sum(len(result["seeds"]) for _, result in values)


def routes_of(result):
    """1 for a model trained alone, else 2 or more."""
    return 1 if result["full"]["route"] == result["smallest"]["route"] else 2


def near(points):
    """The points nearest to the told savings, each once."""
    chosen = []
    for saving in SAVINGS if len(points) > 1 else ():
        nearest = min(points, key=lambda one: abs(one["saved"] - saving))
        if abs(nearest["saved"] - saving) < 0.06 and nearest not in chosen:
            chosen.append(nearest)
    return chosen or points[:1]


def short(mflops):
    """Two significant digits, or more above 100."""
    return f"{mflops:.{0 if mflops >= 10 else 1 if mflops >= 1 else 2}f}".removeprefix("0")


def told(found):
    return f"{found['mean']:.4f} ±{found['se'] or 0:.4f}".replace("0.", ".")


def difference(found):
    """Of several trainings with the interval, which covers what another one would have come to; of one with ± alone."""
    if len(found["by_seed"]) > 1 and found.get("interval"):
        return interval(found)
    return f"{signed(found['mean'])} ±{found['se'] or 0:.4f}".replace("0.", ".")


def interval(found):
    low, high = found["interval"]
    return f"{signed(found['mean'])} ({signed(low)} to {signed(high)})".replace("0.", ".")


def signed(number):
    """With four digits, or up to six where fewer are zeros alone."""
    digits = next((digits for digits in (4, 5) if abs(number) >= 0.5 * 10**-digits), 6)
    return f"{number:+.{digits}f}"
