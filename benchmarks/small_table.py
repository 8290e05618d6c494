"""FedoSSL against federated ORCA on the shipped pictures of clothes, and the grid, as tables."""

from __future__ import annotations

from long_form import Scores, difference, markdown, mean, percent

METRICS = {
    "Seen": "accuracy_seen",
    "AU": "accuracy_unseen",
    "LU": "accuracy_locally_unseen",
    "GU": "accuracy_globally_unseen",
    "All": "accuracy_all_paper",
    "All joint": "accuracy_all",
}
METHODS = {"FedoSSL": "fedossl", "Fed-AO (federated ORCA)": "orca"}
SEEN = "0.6"
RATIOS = ("0.4", "0.6", "0.8")
PRIVACY = {
    "16 centroids a client, Sinkhorn-Knopp": "",
    "32 centroids a client": "local=32",
    "8 centroids a client": "local=8",
    "16 centroids by k-means": "kmeans",
}
MAIN_TEXT = """\
The default run, FedoSSL on the shipped Fashion-MNIST subset, and ORCA in its place with the same split, self-supervised
weights, rounds and local epochs: test accuracy in percent after the last round, mean and 95 % t-interval over {seeds}
seeds from 0 on, difference paired by seed; the columns are explained in [docs/fedossl.md](docs/fedossl.md#metrics).
`python benchmarks/fedossl_small.py` makes [results/fedossl_fashion_small.csv](results/fedossl_fashion_small.csv)."""
GRID_TEXT = "Other shares of seen classes, and other centroids than 16 by Sinkhorn-Knopp (60 % seen), seed 0 alone:"


def setting(ratio: str = SEEN) -> str:
    """Give the setting of a run, as the table writes it."""
    return f"clients=10;seen_ratio={ratio}"


def values(scores: Scores, method: str, variant: str, ratio: str, metric: str) -> dict[int, float]:
    """Give a score of each seed."""
    return scores.values(method, variant, setting(ratio), METRICS[metric])


def comparison(scores: Scores) -> str:
    """Give both methods and their difference."""
    lines = [
        [name, *(percent(mean(values(scores, method, "", SEEN, metric))) for metric in METRICS)]
        for name, method in METHODS.items()
    ]
    pairs = [[values(scores, method, "", SEEN, metric) for method in ("orca", "fedossl")] for metric in METRICS]
    gains = [difference(*pair) for pair in pairs]
    return markdown(["", *METRICS], [*lines, ["difference", *(percent(gain, "+") for gain in gains)]])


def verdict(scores: Scores) -> str:
    """Say in which scores FedoSSL differs by more than the interval."""
    ahead, behind = [], []
    for metric in METRICS:
        gain = difference(*(values(scores, method, "", SEEN, metric) for method in ("orca", "fedossl")))
        if abs(gain.mean) > gain.half:
            (ahead if gain.mean > 0 else behind).append(metric)
    known = [f"{word} in {', '.join(names)}" for word, names in (("ahead", ahead), ("behind", behind)) if names]
    if not known:
        return "No difference exceeds its interval: the two are not told apart."
    return f"FedoSSL is {' and '.join(known)} by more than the interval; the other scores do not tell them apart."


def grid(scores: Scores) -> str:
    """Give the grid, as far as it was run."""
    lines = [
        [f"{name}, {float(ratio):.0%} of the classes seen", *_row(scores, method, "", ratio)]
        for ratio in RATIOS
        for name, method in METHODS.items()
    ]
    privacy = {name: variant for name, variant in PRIVACY.items() if variant}
    lines += [[f"FedoSSL, {name}", *_row(scores, "fedossl", variant, SEEN)] for name, variant in privacy.items()]
    return markdown(["", *METRICS], [line for line in lines if any(line[1:])])


def _row(scores: Scores, method: str, variant: str, ratio: str) -> list[str]:
    """Give seed 0, the one that all of the grid has."""
    found = [{seed: v for seed, v in values(scores, method, variant, ratio, m).items() if seed == 0} for m in METRICS]
    return [percent(mean(one)) for one in found]


def page(scores: Scores) -> list[str]:
    """Give the parts of a page."""
    seeds = len(values(scores, "fedossl", "", SEEN, "AU"))
    parts = [MAIN_TEXT.format(seeds=seeds), comparison(scores), verdict(scores)]
    has_grid = any(values(scores, "fedossl", variant, SEEN, "AU") for variant in PRIVACY.values() if variant)
    return [*parts, *([GRID_TEXT, grid(scores)] if has_grid else [])]
