"""What faiss finds with as many products, by inverted lists and by a graph."""

from typing import Any

import numpy as np

Array = np.ndarray


def recalls(
    rows: Array, queries: Array, exact: Array, budget: float
) -> dict[str, float | None]:
    """Shares of the exact best that are found; None for what cannot be measured.

    `rows` are `f32[n, d]`, `queries` `f32[b, d]`, `exact` `i32[b, k]` the best rows,
    and `budget` how many rows may be scored for a query.
    """
    try:
        import faiss
    except ImportError:
        return {"recall_at_10_faiss": None, "recall_at_10_faiss_hnsw": None}
    return {
        "recall_at_10_faiss": of_lists(faiss, rows, queries, exact, budget),
        "recall_at_10_faiss_hnsw": of_graph(faiss, rows, queries, exact, budget),
    }


def of_lists(
    faiss: Any, rows: Array, queries: Array, exact: Array, budget: float
) -> float:
    """An inverted file of k-means cells; as many are read as the budget has rows.

    The products with the centres of all cells, `4 sqrt(n)`, are not counted.
    """
    n, d = rows.shape
    num_lists = int(4 * np.sqrt(n))
    quantizer = faiss.IndexFlatIP(d)
    index = faiss.IndexIVFFlat(quantizer, d, num_lists, faiss.METRIC_INNER_PRODUCT)
    index.train(rows)
    index.add(rows)
    index.nprobe = max(round(budget / n * num_lists), 1)
    return overlap(index.search(queries, exact.shape[1])[1], exact)


def of_graph(
    faiss: Any, rows: Array, queries: Array, exact: Array, budget: float
) -> float | None:
    """A navigable graph, with the widest beam that stays within the budget."""
    index = faiss.IndexHNSWFlat(rows.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 40
    index.add(rows)
    recall = None
    for beam in (16, 32, 64, 128, 256, 512):
        index.hnsw.efSearch = beam
        faiss.cvar.hnsw_stats.reset()
        found = index.search(queries, exact.shape[1])[1]
        if faiss.cvar.hnsw_stats.ndis / len(queries) > budget:
            break
        recall = overlap(found, exact)
    return recall


def overlap(found: Array, exact: Array) -> float:
    """Share of the exact best that were found."""
    return float(np.mean(np.any(exact[:, :, None] == found[:, None, :], axis=2)))
