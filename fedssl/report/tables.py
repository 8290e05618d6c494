"""What a run came to: final and best values, the outcome in words, and warnings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedssl.metrics import fairness
from fedssl.metrics.base import PERSONAL, metric_of, sort_key
from fedssl.report.run import Record, Run, clients_table, last_by_client, number

if TYPE_CHECKING:
    from fedssl.report.split import SplitCounts

NONE = "\N{EN DASH}"


@dataclass(frozen=True)
class Outcome:
    """Final and best values, each with its round; `spread` of the main metric over clients."""

    metric: str
    final: dict[str, float]
    best: dict[str, float]
    spread: dict[str, float]


def title(metric: str) -> str:
    """Return a metric's name in words."""
    return metric_of(metric).title


def shown(metric: str, value: float | None) -> str:
    """Return a metric's value as text with its unit; a dash if there is none."""
    if value is None or math.isnan(value):
        return NONE
    return f"{100 * value:.1f}%" if metric_of(metric).is_share else f"{value:.3f}"


def outcome(run: Run) -> Outcome:
    """Give what the summary says; without one, what the journal shows."""
    metric = run.main_metric
    final = _numbers(run.summary.get("final")) or _scores(_scored(run)[-1:])
    best = _numbers(run.summary.get("best")) or _scores(_best(run, metric))
    spread = _numbers(run.summary.get("clients"))
    if not spread:
        values = last_by_client(clients_table(run), metric)
        spread = _numbers(fairness.spread(values.to_numpy(float)))
    return Outcome(metric, final, best, spread)


def _numbers(values: object) -> dict[str, float]:
    items = values.items() if isinstance(values, Mapping) else ()
    pairs = {str(name): number(value) for name, value in items}
    return {name: value for name, value in pairs.items() if not math.isnan(value)}


def _scored(run: Run) -> list[Record]:
    return [record for record in run.records if _numbers(record.get("test"))]


def _scores(records: list[Record]) -> dict[str, float]:
    return {"round": records[0]["round"], **_numbers(records[0]["test"])} if records else {}


def _best(run: Run, metric: str) -> list[Record]:
    ranked = [
        (number((record.get("validation") or {}).get(metric)), -record["round"], record) for record in _scored(run)
    ]
    ranked = [item for item in ranked if not math.isnan(item[0])]
    return [max(ranked, key=lambda item: item[:2])[2]] if ranked else []


def values_table(result: Outcome) -> list[tuple[str, str, str]]:
    """Give rows (metric, final, best) as text, the main metric among the first."""
    names = sorted((set(result.final) | set(result.best)) - {"round"}, key=sort_key)
    return [(title(name), shown(name, result.final.get(name)), shown(name, result.best.get(name))) for name in names]


def sentence(run: Run, result: Outcome) -> str:
    """Say in plain words what the run came to."""
    metric = result.metric
    own, name = metric.startswith(PERSONAL), title(metric.removeprefix(PERSONAL))
    if metric not in result.final:
        rounds = f"{len(run.records)} rounds" if len(run.records) != 1 else "1 round"
        return f"No model was scored on test samples; the journal holds {rounds}."
    lead = f"The clients' own models ended at a mean test {name}" if own else f"The global model ended at a test {name}"
    text = f"{lead} of {shown(metric, result.final[metric])}"
    text += f" (round {result.final.get('round', math.nan):.0f})"
    if metric in result.best:
        text += f"; the round that was best on validation is {result.best.get('round', math.nan):.0f}"
        text += f", with {shown(metric, result.best[metric])} on test"
    if result.spread:
        low, mean = (shown(metric, result.spread.get(key)) for key in ("p10", "mean"))
        text += (
            f"; the 10th percentile is {low}" if own else f"; over clients it has mean {mean} and 10th percentile {low}"
        )
    personal = PERSONAL + metric
    if personal in result.final:
        text += f"; clients' own models reach {shown(personal, result.final[personal])}"
    return text + "."


def warnings(run: Run, split: SplitCounts | None) -> list[str]:
    """Give what to know before the numbers: stops, failures, dropped and truth-free samples."""
    found = _status_warnings(run)
    found += _failures(run)
    found += [_sentence(line) for line in run.summary.get("warnings") or []]
    found += outcome_warnings(run)
    if split is not None and split.num_dropped:
        found.append(f"{split.num_dropped} training samples were dropped by the partition: nobody has them.")
    if split is not None and split.num_unknown and not _finds_boxes(run):
        found.append(_truth_free(split))
    return found


def _sentence(line: str) -> str:
    return line[:1].upper() + line[1:] + ("" if line.endswith(("?", ".")) else ".")


def outcome_warnings(run: Run) -> list[str]:
    """Give what made a run's rounds of no use: it fell below its beginning, or no client gave or learnt anything."""
    found = []
    if run.method.get("collapsed") is True:
        found.append(_collapsed(run.method))
    asked = [record for record in run.records if record.get("cohort")]
    if asked and not any(set(record["cohort"]) - _failed(record) for record in asked):
        found.append("No client answered well in any round.")
    skipped = [(record.get("train") or {}).get("skipped_batches") for record in run.records]
    if (known := [share for share in skipped if share is not None]) and min(known) == 1.0:
        found.append(
            "No client found a pseudo-box in any round, so none learnt from its pictures: the warm-up is too short "
            "(method.warm_up, method.warm_up_weights) or method.nms_score too high."
        )
    return found


def _failed(record: Record) -> set[int]:
    return {int(client) for client in record.get("failed") or {}}


def _status_warnings(run: Run) -> list[str]:
    found = []
    planned = run.config.get("rounds", "an unknown number of")
    if run.status != "done":
        reason = " (no summary.json: killed, or still running)" if not run.summary else ""
        reached = f"{len(run.records)} of {planned} rounds are in the journal"
        found.append(f"This run is {run.status}{reason}: {reached}; all values below are of those.")
    gone = [name for name in run.missing if name != "summary.json"]
    if (run.main_metric.startswith(PERSONAL) or _finds_boxes(run)) and "reliability.json" in gone:
        gone.remove("reliability.json")  # it is of the global model's classes, which such a run does not score
    if gone:
        found.append(f"Not in the run directory, so left out or rebuilt from the journal: {', '.join(gone)}.")
    return found


def _collapsed(told: Record) -> str:
    """Say how far a run fell below the model that it began with."""
    metric = str(told.get("main_metric", "map50"))
    before, after = (shown(metric, _numbers(told.get(name)).get(metric)) for name in ("warm_up", "final"))
    return f"Collapsed: the run ended below its warm-up, at a test {title(metric)} of {after} after {before}."


def _failures(run: Run, limit: int = 12) -> list[str]:
    by_cause: dict[tuple[str, str], list[int]] = {}
    for record in run.records:
        for client, reason in (record.get("failed") or {}).items():
            last = (str(reason).strip().splitlines() or ["no reason given"])[-1]
            by_cause.setdefault((str(client), last[:200]), []).append(record["round"])
    lines = [
        f"Client {client} failed in round{'s' * (len(rounds) > 1)} {ranges(rounds)}: {reason}"
        for (client, reason), rounds in by_cause.items()
    ]
    more = [f"{len(lines) - limit} more failures are in metrics.jsonl."] if len(lines) > limit else []
    return lines[:limit] + more


def ranges(numbers: list[int]) -> str:
    """Write sorted whole numbers shortly: 1, 3-5."""
    parts: list[list[int]] = []
    for value in numbers:
        if parts and value == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], value]
        else:
            parts.append([value])
    return ", ".join("-".join(map(str, part)) for part in parts)


def _finds_boxes(run: Run) -> bool:
    """Say whether the run is a detector's: what is true of a picture are then boxes, and its class is none."""
    return run.choice("model") == "detector" or metric_of(run.main_metric).of == "boxes"


def _truth_free(split: SplitCounts) -> str:
    unknown, unlabelled = split.num_unknown, int(split.unlabelled.sum())
    rest = "have no truth behind them" if unknown >= unlabelled else f"rest on the other {unlabelled - unknown} alone"
    return (
        f"{unknown} of {unlabelled} unlabelled training samples have no known class: pseudo-label "
        f"precision and coverage, and the true classes in the split, {rest}."
    )


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Give a nested mapping as dotted names to text, in sorted order."""
    flat: dict[str, str] = {}
    for key in sorted(values, key=str):
        value, name = values[key], f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: str(value)}
    return flat
