"""FedoSSL against federated ORCA on the shipped pictures of clothes, and a grid of what it depends on. Resumable.

Usage: python benchmarks/fedossl_small.py [--jobs 2] [--seeds 5] [--grid-seeds 1] [--only TEXT]

First the default run of `fedssl run` and ORCA (Fed-AO) in its place, for all seeds. Then the grid: 4, 6 or 8 of the
ten classes seen, and what a client sends for the global centroids: 32, 16 (default) or 8 local centroids, by
Sinkhorn-Knopp or k-means.
"""

from __future__ import annotations

from collections.abc import Iterator

from published import ROOT, Cell, arguments, describe, fill

COMMON = (
    *("data=fashion_small", "model=resnet", "model.head=cosine", "model.weights=auto", "model.pretrain_epochs=10"),
    *("partition=open_world", "labels=client_rate", "labels.rate=0.5", "clients=10", "rounds=20"),
    *("method.epochs=2", "method.batch_size=64", "method.cache_views=4"),
    *("engine=inline", "evaluation.every=10", "checkpoint.every=0"),
)
METHODS = {"fedossl": ("calibration=centroid", "method.warmup=off"), "orca": ()}
SEEN = "0.6"
OTHERS = ("0.4", "0.8")
PRIVACY = {
    "local=32": ("calibration.local=32",),
    "local=8": ("calibration.local=8",),
    "kmeans": ("calibration.cluster=kmeans",),
}


def cell(method: str, variant: str, seen: str, seed: int) -> Cell:
    """Give one run."""
    given = (f"method={method}", *METHODS[method], *PRIVACY.get(variant, ()), f"partition.seen_ratio={seen}")
    return Cell(method, variant, f"clients=10;seen_ratio={seen}", seed, (*COMMON, *given))


def cells(seeds: int, grid_seeds: int) -> Iterator[Cell]:
    """Give all runs, one seed after the other."""
    for seed in range(seeds):
        for method in METHODS:
            yield cell(method, "", SEEN, seed)
    for seed in range(grid_seeds):
        for seen in OTHERS:
            for method in METHODS:
                yield cell(method, "", seen, seed)
        for variant in PRIVACY:
            yield cell("fedossl", variant, SEEN, seed)


def main() -> None:
    """Run what is missing in the table."""
    parser = arguments("fedossl_fashion_small", 5, __doc__)
    parser.add_argument("--grid-seeds", type=int, default=1, help="seeds of the grid, from 0")
    parser.add_argument("--only", default="", help="only runs whose method/variant/setting/seed holds this text")
    options = parser.parse_args()
    chosen = [c for c in cells(options.seeds, options.grid_seeds) if options.only in "/".join(c.key)]
    fill(chosen, options.out, options.jobs)
    command = f"python benchmarks/fedossl_small.py --seeds {options.seeds} --grid-seeds {options.grid_seeds}"
    describe(options.out, command, [ROOT / "fedssl/data/sources/fashion_small.npz"])


if __name__ == "__main__":
    main()
