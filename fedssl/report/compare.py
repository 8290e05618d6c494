"""Several runs on one page: means over seeds with intervals, curves, paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedssl.config import ConfigError
from fedssl.metrics.base import PERSONAL, metric_of, sort_key
from fedssl.report import tables
from fedssl.report.canvas import PALETTE, label, legend, new_figure, plain, whole_rounds
from fedssl.report.intervals import Interval, paired_difference, t_interval
from fedssl.report.page import render, show, write
from fedssl.report.run import Run, clients_table, curve, read, rounds_table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

NOT_COMPARED = ("seed", "out", "engine")


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone; `config` is flat."""

    name: str
    config: dict[str, str]
    runs: dict[int, Run]

    @cached_property
    def stand_ins(self) -> dict[int, pd.DataFrame]:
        """Give, by seed, each round's mean over clients of the global model's scores, of runs that score only that."""
        return {
            seed: clients_table(run).groupby("round").mean(numeric_only=True)
            for seed, run in self.runs.items()
            if not any(name.startswith(PERSONAL) for name in tables.outcome(run).final)
        }


def compare(directories: Sequence[Path], out: Path) -> Path:
    """Write one page on several runs; give its path.

    `out` is the page (`*.html`) or a folder for `report.html`; the figure goes to `figures` beside
    it. Raises ConfigError if a directory is no run.
    """
    if not directories:
        raise ConfigError("report", [], "at least one run directory")
    out = Path(out)
    page = out if out.suffix == ".html" else out / "report.html"
    groups, warnings = group_runs([read(Path(directory)) for directory in directories])
    metric = common_metric(groups)
    number = sum(len(group.runs) for group in groups)
    differing = differences(groups)
    scored = "the clients' own models" if metric.startswith(PERSONAL) else "the global model"
    caption = f"Test scores of {scored}; bands are 95 % t-intervals of the mean over seeds."
    drawn = {"compare": curves_figure(groups, metric), "kinds": kinds_figure(groups, metric)}
    headings = {"compare": "Curves", "kinds": "Seen and unseen classes"}
    folder = page.parent / "figures"
    html = render(
        "compare.html.j2",
        heading=f"{number} runs, {len(groups)} settings" if len(groups) > 1 else f"{number} runs of one setting",
        sentence=_sentence(groups, metric),
        warnings=warnings + _other_splits(groups) + _unfinished(groups) + _stood_in(groups, metric),
        groups=groups,
        results={f"{which.capitalize()} values": result_rows(groups, which) for which in ("final", "best")},
        figures=[
            show(figure, folder / f"{name}.png", headings[name], caption) for name, figure in drawn.items() if figure
        ],
        paired=_paired(groups, metric),
        differing=differing,
        shared={key: text for key, text in groups[0].config.items() if key not in differing},
    )
    return write(page, html)


def group_runs(runs: Sequence[Run]) -> tuple[list[Group], list[str]]:
    """Put runs together that differ in seed, out and engine alone; also warn of doubled seeds."""
    found: list[tuple[dict[str, str], dict[int, Run]]] = []
    warnings = []
    for run in runs:
        kept = {key: value for key, value in run.config.items() if key not in NOT_COMPARED}
        config, seed = tables.flatten(kept), int(run.config.get("seed") or 0)
        members = next((members for other, members in found if other == config), None)
        if members is None:
            members = {}
            found.append((config, members))
        if seed in members:
            warnings.append(f"{run.directory} repeats {members[seed].directory} (seed {seed}): left out.")
        else:
            members[seed] = run
    names = _names([config for config, _ in found])
    pairs = zip(names, found, strict=True)
    return [Group(name, config, dict(sorted(members.items()))) for name, (config, members) in pairs], warnings


def _names(configs: list[dict[str, str]]) -> list[str]:
    """Name a group by what tells it apart: a choice, or option=value within an equal choice."""
    if len(configs) == 1:
        return [f"{configs[0].get('method.name', '?')} on {configs[0].get('data.name', '?')}"]
    names = []
    for config in configs:
        parts = [
            text if key.endswith(".name") else f"{key.rpartition('.')[2]}={text}"
            for key, text in sorted(config.items(), key=lambda item: not item[0].endswith(".name"))
            if any(_tells_apart(key, config, other) for other in configs)
        ]
        names.append(" ".join(" ".join(parts).split())[:60])
    return names if len(set(names)) == len(names) else [f"{i}: {name}" for i, name in enumerate(names, 1)]


def _tells_apart(key: str, config: dict[str, str], other: dict[str, str]) -> bool:
    choice = f"{key.partition('.')[0]}.name"
    return config[key] != other.get(key) and (key == choice or config.get(choice) == other.get(choice))


def differences(groups: Sequence[Group]) -> dict[str, list[str]]:
    """Give the settings that are not equal in all groups, with each group's value."""
    keys = sorted({key for group in groups for key in group.config})
    cells = {key: [group.config.get(key, tables.NONE) for group in groups] for key in keys}
    return {key: [text[:120] for text in texts] for key, texts in cells.items() if len(set(texts)) > 1}


def values_by_seed(group: Group, metric: str, which: str) -> dict[int, float]:
    """Give a group's `final` or `best` value of a metric by seed; runs without it are left out.

    Of a run without models of the clients' own, a `personal_` value is the global model's mean over clients.
    """
    found = {}
    for seed, run in group.runs.items():
        values = getattr(tables.outcome(run), which)
        if metric in values:
            found[seed] = values[metric]
        elif len(means := _stand_in(group, seed, metric)) and values.get("round") in means.index:
            found[seed] = float(means.loc[values["round"]])
    return found


def _stand_in(group: Group, seed: int, metric: str) -> pd.Series[float]:
    """Give by round the mean over clients that stands for a `personal_` metric; empty where none does."""
    import pandas as pd

    name = metric.removeprefix(PERSONAL)
    if name == metric or seed not in group.stand_ins or name not in group.stand_ins[seed]:
        return pd.Series(dtype=float)
    values: pd.Series[float] = group.stand_ins[seed][name].dropna()
    return values


def result_rows(groups: Sequence[Group], which: str) -> list[tuple[str, list[str]]]:
    """Give rows (metric, a cell a group) of `final` or `best` values."""
    names = {name for group in groups for run in group.runs.values() for name in getattr(tables.outcome(run), which)}
    ordered = sorted(names - {"round"}, key=sort_key)
    return [
        (
            tables.title(name),
            [_cell(name, t_interval([*values_by_seed(group, name, which).values()])) for group in groups],
        )
        for name in ordered
    ]


def common_metric(groups: Sequence[Group]) -> str:
    """Give the main metric that most settings have, personal or not: the first setting's if equal."""
    mains = [next(iter(group.runs.values())).main_metric for group in groups]
    named = list(dict.fromkeys([*mains, *(PERSONAL + name.removeprefix(PERSONAL) for name in mains)]))
    return max(named, key=lambda name: sum(bool(values_by_seed(group, name, "final")) for group in groups))


def _cell(metric: str, interval: Interval) -> str:
    if interval.n == 0:
        return tables.NONE
    mean = tables.shown(metric, interval.mean)
    if interval.n == 1:
        return f"{mean} (n = 1)"
    half = tables.shown(metric, interval.half).removesuffix("%")
    return f"{mean.removesuffix('%')} ± {half}{'%' * mean.endswith('%')} (n = {interval.n})"


def _sentence(groups: Sequence[Group], metric: str) -> str:
    means = {g.name: t_interval([*values_by_seed(g, metric, "final").values()]) for g in groups}
    scored = {name: interval for name, interval in means.items() if interval.n}
    if not scored:
        return "No run was scored on test samples."
    lowest = metric_of(metric).better == "lower"
    name, interval = (min if lowest else max)(scored.items(), key=lambda item: item[1].mean)
    lead = (
        f"{'Lowest' if lowest else 'Highest'} final test {tables.title(metric)}: {name}, "
        if len(groups) > 1
        else f"{name}: "
    )
    unscored = [g.name for g in groups if g.name not in scored]
    rest = f" Without this score: {', '.join(unscored)}." if unscored else ""
    return f"{lead}{_cell(metric, interval)}.{rest}"


def _other_splits(groups: Sequence[Group]) -> list[str]:
    """Tell of the first seed in which settings had other samples or labels at the clients."""
    for seed in sorted({seed for group in groups for seed in group.runs}):
        names: dict[str, list[str]] = {}
        for group in groups:
            if seed in group.runs and (split := group.runs[seed].summary.get("split_sha256")):
                names.setdefault(split, []).append(group.name)
        if len(names) > 1:
            told = "; ".join(", ".join(alike) for alike in names.values())
            return [f"Clients had other samples or labels, so differences are of these too (seed {seed}): {told}."]
    return []


def _unfinished(groups: Sequence[Group]) -> list[str]:
    return [
        f"{run.directory.name} ({group.name}, seed {seed}) is {run.status} after "
        f"{len(run.records)} rounds; its last scores count as final."
        for group in groups
        for seed, run in group.runs.items()
        if run.status != "done"
    ]


def _stood_in(groups: Sequence[Group], metric: str) -> list[str]:
    return [
        f"{group.name} has no models of the clients' own: in their place are the global model's scores, "
        "as means over clients."
        for group in groups
        if any(len(_stand_in(group, seed, metric)) for seed in group.runs)
    ]


def _paired(groups: Sequence[Group], metric: str) -> dict[str, list[tuple[str, str, str, int]]]:
    """Give paired differences by metric: of the main one, and on unseen classes where there are some."""
    prefix = PERSONAL if metric.startswith(PERSONAL) else ""
    found = {tables.title(name): _paired_rows(groups, name) for name in (metric, f"{prefix}accuracy_unseen")}
    return {name: rows for name, rows in found.items() if rows}


def _paired_rows(groups: Sequence[Group], metric: str) -> list[tuple[str, str, str, int]]:
    rows = []
    for a, b in combinations(groups, 2):
        found = paired_difference(values_by_seed(a, metric, "final"), values_by_seed(b, metric, "final"))
        if found is not None:
            low, high = (_signed(metric, found.mean + sign * found.half) for sign in (-1, 1))
            rows.append(
                (
                    f"{b.name} minus {a.name}",
                    _signed(metric, found.mean),
                    f"{low} to {high}",
                    found.n,
                )
            )
    return rows


def _signed(metric: str, value: float) -> str:
    return f"{100 * value:+.1f} points" if metric_of(metric).is_share else f"{value:+.3f}"


def curves_figure(groups: Sequence[Group], metric: str) -> Figure | None:
    """Draw test metric and loss, a line a group, over rounds in which all its seeds were scored."""
    loss = f"{PERSONAL}loss" if metric.startswith(PERSONAL) else "loss"
    names = {name: metric_of(name).axis for name in (metric, loss)}
    return _panels(groups, names, "Scores by round and setting")


def kinds_figure(groups: Sequence[Group], metric: str) -> Figure | None:
    """Draw the accuracies on seen and unseen classes, as `curves_figure` draws `metric`; None without any."""
    prefix = PERSONAL if metric.startswith(PERSONAL) else ""
    kinds = ("seen", "unseen", "locally unseen", "globally unseen")
    names = {f"{prefix}accuracy_{kind.replace(' ', '_')}": f"{kind} (%)" for kind in kinds}
    return _panels(groups, names, "Accuracy on seen and unseen classes")


def _panels(groups: Sequence[Group], names: dict[str, str], title: str) -> Figure | None:
    curves = {(g.name, name): _curve_table(g, name) for g in groups for name in names}
    panels = [name for name in names if any(len(curves[g.name, name]) for g in groups)]
    if not panels:
        return None
    sizes = sorted({len(group.runs) for group in groups})
    seeds = f"{sizes[0]} to {sizes[-1]}" if len(sizes) > 1 else f"{sizes[0]}"
    note = f"test, mean over n = {seeds} seeds a setting; band: 95 % t-interval"
    figure, axes = new_figure(title, note, 1.6 + 2.7 * len(panels), len(panels), sharex=True)
    for ax, name in zip(axes, panels, strict=True):
        for place, group in enumerate(groups):
            if len(curves[group.name, name]):
                _draw_band(ax, curves[group.name, name], group.name, place, 100 if metric_of(name).is_share else 1)
        label(ax, y=names[name])
    label(axes[-1], "round", axes[-1].get_ylabel())
    whole_rounds(axes[-1])
    legend(figure, axes, columns=2)
    return figure


def _curve_table(group: Group, metric: str) -> pd.DataFrame:
    import pandas as pd

    curves = {}
    for seed, run in group.runs.items():
        own = curve(rounds_table(run.records), "test", metric)
        curves[seed] = own if len(own) else _stand_in(group, seed, metric)
    table = pd.DataFrame(curves).dropna()
    return pd.DataFrame(
        [t_interval(row) for row in table.to_numpy().tolist()],
        index=table.index,
        columns=["mean", "half", "n"],
        dtype=float,
    )


def _draw_band(ax: Any, table: pd.DataFrame, name: str, place: int, unit: int) -> None:
    color, style = PALETTE[place % len(PALETTE)], ("-", "--", ":", "-.")[place // len(PALETTE) % 4]
    mean, half = table["mean"] * unit, table["half"].fillna(0) * unit
    marker = "o" if len(table) <= 30 else ""
    ax.plot(table.index, mean, style, color=color, label=plain(name, 48), marker=marker, markersize=4)
    low, high = mean - half, mean + half
    if unit == 100:
        # With two seeds the interval is wider than any share can be.
        low, high = low.clip(0, 100), high.clip(0, 100)
    ax.fill_between(table.index, low, high, color=color, alpha=0.15, linewidth=0)
