"""Every kind of index against exact search; what is written is what plain FAISS reads."""

import faiss
import numpy as np
import pytest

from aesearch.errors import AesearchError
from aesearch.index.build import build_index
from aesearch.index.options import FLAT_MOST_NUMBERS, IndexOptions, choose_factory
from aesearch.index.search import load_index
from aesearch.vectors import distances
from aesearch.vectors.distances import exact_neighbours, nearest_in_blocks, prepare


@pytest.fixture(scope="module")
def features():
    """4,000 rows in 40 groups, 16 numbers each: near neighbours exist, as in real features."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(40, 16))
    return (centres[generator.integers(0, 40, 4000)] + generator.normal(size=(4000, 16))).astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "metric"),
    [
        ("flat", "cosine"), ("flat", "l2"), ("hnsw", "cosine"), ("hnsw", "l2"), ("ivf", "cosine"), ("ivf", "l2"),
        ("ivfpq", "l2"), ("IVF32,SQ8", "cosine"), ("IVF64_HNSW32,Flat", "l2"), ("IVF40_HNSW8,SQ8", "cosine"),
        ("PCA16,HNSW16", "l2"), ("OPQ8,IVF16,PQ8x4", "cosine"),
    ],
)  # fmt: skip
def test_answers_are_row_numbers_close_to_exact_search(features, kind, metric):
    built = build_index(features, IndexOptions(kind=kind, metric=metric, min_recall=0))
    queries = features[::100] + np.float32(0.01)
    rows, distances = built.search(queries, 10)
    exact_rows, exact_distances = exact_neighbours(features, queries, 10, metric)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, exact_rows, strict=True)])
    assert recall > (0.3 if "PQ" in kind.upper() else 0.8)
    assert (rows[:, 0] == exact_rows[:, 0]).mean() > (0.5 if "PQ" in kind.upper() else 0.9)
    if kind in ("flat", "hnsw", "ivf"):
        same = rows[:, 0] == exact_rows[:, 0]
        assert np.allclose(distances[same, 0], exact_distances[same, 0], atol=1e-4)


def test_measured_recall_is_that_of_queries_the_index_did_not_hold(features):
    built = build_index(features, IndexOptions(kind="IVF64,Flat", metric="l2", min_recall=0))
    held_out = np.sort(np.random.default_rng(0).permutation(4000)[:400])
    kept = np.setdiff1d(np.arange(4000), held_out)
    assert built.figures["queries"] == 400
    again = faiss.index_factory(16, "IVF64,Flat")
    again.train(features[kept])
    again.add(features[kept])
    again.nprobe = built.figures["effort"]["nprobe"]  # type: ignore[attr-defined]
    found = again.search(features[held_out], 10)[1]
    truth = faiss.knn(features[held_out], features[kept], 10)[1]
    expected = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, truth, strict=True)])
    assert built.figures["recall_at_10"] == pytest.approx(expected, abs=0.005)


def test_effort_is_raised_until_the_recall_is_reached(features):
    low = build_index(features, IndexOptions(kind="IVF64,Flat", min_recall=0))
    high = build_index(features, IndexOptions(kind="IVF64,Flat", min_recall=0.999))
    assert low.figures["recall_at_10"] < 0.999 <= high.figures["recall_at_10"]
    assert high.figures["effort"]["nprobe"] > low.figures["effort"]["nprobe"]


def test_exact_search_takes_over_where_effort_does_not_help(features, caplog):
    built = build_index(features, IndexOptions(kind="IVF16,PQ1x4", min_recall=0.95))
    assert built.figures["kind"] == "Flat" and built.figures["recall_at_10"] == 1.0
    assert "exact search instead" in caplog.text


PLENTY = 10**12


def test_auto_is_exact_while_that_is_quick():
    def first(rows):
        return choose_factory("auto", rows, 64, PLENTY)[0]

    assert first(1797) == first(FLAT_MOST_NUMBERS // 64) == "Flat"
    assert first(FLAT_MOST_NUMBERS // 64 + 1) == "IVF500,Flat" and first(1_000_000) == "IVF2000,Flat"
    assert first(10_000_000) == "IVF20000_HNSW32,Flat"  # or a search would take the longer the more rows there are


def test_many_lists_are_found_in_parts(features, monkeypatch):
    whole = build_index(features, IndexOptions(kind="IVF64_HNSW32,Flat", min_recall=0))
    monkeypatch.setattr("aesearch.index.build.PARTED", 64)
    parted = build_index(features, IndexOptions(kind="IVF64_HNSW32,Flat", min_recall=0))
    assert parted.figures["recall_at_10"] > whole.figures["recall_at_10"] - 0.05 > 0.8
    sizes = [parted.index.invlists.list_size(n) for n in range(64)]  # type: ignore[attr-defined]
    assert sum(sizes) == 4000 and min(sizes) > 0 and max(sizes) < 400
    again = build_index(features, IndexOptions(kind="IVF64_HNSW32,Flat", min_recall=0))
    assert np.array_equal(parted.search(features[:50], 5)[0], again.search(features[:50], 5)[0])


def test_auto_keeps_within_the_memory():
    rows, seen = 10_000_000, []
    for memory in (8e9, 2e9, 1e9, 1e6):
        factory, reason = choose_factory("auto", rows, 64, int(memory))
        seen.append(factory.rpartition(",")[2])
        assert ("of memory" in reason) == (memory < 8e9)
    assert seen == ["Flat", "SQ8", "PQ32x8np", "PQ32x8np"]


def test_an_index_that_had_to_be_small_says_how_true_it_is(features, caplog):
    built = build_index(features, IndexOptions(max_memory=4000 * 20, min_recall=1.0))
    assert ",PQ" in built.figures["kind"] and 0.5 < built.figures["recall_at_10"] < 1
    assert "raise --max-memory" in caplog.text


class Sliced:
    """Rows that can only be sliced, and remember how much was asked for at once."""

    def __init__(self, features):
        self.features, self.shape, self.most = features, features.shape, 0

    def __getitem__(self, rows):
        assert isinstance(rows, slice)
        self.most = max(self.most, len(self.features[rows]))
        return self.features[rows]


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_rows_are_read_some_at_a_time(features, kind, monkeypatch):
    whole = build_index(features, IndexOptions(kind=kind))
    monkeypatch.setattr(distances, "BLOCK_ROWS", 1000)
    monkeypatch.setattr("aesearch.index.options.MOST_ROWS", 1000)
    sliced = Sliced(features)
    blockwise = build_index(sliced, IndexOptions(kind=kind))
    assert sliced.most == 1000
    assert blockwise.figures["recall_at_10"] == pytest.approx(whole.figures["recall_at_10"], abs=0.01)
    same = blockwise.search(features[:100], 5)[0] == whole.search(features[:100], 5)[0]
    assert same.mean() > 0.95


def test_exact_search_in_blocks_is_exact_search(features):
    blocks = ((start, features[start : start + 700]) for start in range(0, 4000, 700))
    rows, squared = nearest_in_blocks(blocks, features[:20], 6, without=np.arange(20))
    truth, far = exact_neighbours(features[20:], features[:20], 6, "l2")
    assert np.array_equal(rows, truth + 20) and np.allclose(np.sqrt(squared), far, atol=1e-4)
    rows, squared = nearest_in_blocks([(5, features[:2])], features[:1], 3)
    assert rows.tolist() == [[5, 6, -1]] and np.isinf(squared[0, 2])


def test_recall_comes_with_its_interval_and_speeds(features):
    figures = build_index(features, IndexOptions(kind="ivf", min_recall=0)).figures
    low, high = figures["recall_interval"]
    assert 0 < low < figures["recall_at_10"] < high <= 1
    assert set(figures["queries_per_second"]) == {"1", "400"} and min(figures["queries_per_second"].values()) > 0


def test_codes_are_judged_by_true_distances(features):
    figures = build_index(features, IndexOptions(kind="IVF32,PQ2x8np", metric="l2", min_recall=0)).figures
    index = build_index(features, IndexOptions(kind="IVF32,PQ2x8np", metric="l2", min_recall=0))
    truth, _ = exact_neighbours(features, features[:400], 10, "l2")
    found, _ = index.search(features[:400], 10)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, truth, strict=True)])
    assert figures["recall_at_10"] < 0.75 and abs(figures["recall_at_10"] - recall) < 0.15


@pytest.mark.parametrize(
    ("kind", "message"),
    [("IDMap2,IVF8,Flat", "leave it out"), ("IVF8(IVF2,Flat),SQ8", "may abort"), ("NSG16", "cannot be built")],
)
def test_kinds_that_cannot_take_rows_are_one_line(features, kind, message):
    with pytest.raises(AesearchError, match=message):
        build_index(features, IndexOptions(kind=kind))


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf", "IVF40_HNSW8,SQ8", "PCA12,IVF20,Flat"])
def test_many_queries_at_once_get_what_each_gets_alone(features, kind, monkeypatch):
    built = build_index(features, IndexOptions(kind=kind, min_recall=0))
    queries = features[:1000] + np.float32(0.01)
    few = built.search(queries, 5)
    monkeypatch.setattr("aesearch.index.search.WORTH_SORTING", 500)
    monkeypatch.setattr("aesearch.index.search.NEIGHBOURHOODS", 30)
    many = built.search(queries, 5)
    assert np.array_equal(few[0], many[0]) and np.allclose(few[1], many[1], atol=1e-5)


def test_few_numbers_and_little_memory_still_give_an_index():
    assert choose_factory("auto", 10_000_000, 2, 10**8)


@pytest.mark.parametrize(
    "kind", ["flat", "hnsw", "ivf", "IVF40,SQ8", "PCA12,IVF20,Flat", "PCA12,HNSW16", "IVF64_HNSW32,Flat"]
)
def test_only_selected_rows_are_found(features, kind):
    built = build_index(features, IndexOptions(kind=kind, min_recall=0))
    for among in (np.arange(0, 4000, 2), np.arange(7, 4000, 100)):
        rows, _ = built.search(features[1:20:2], 10, among)
        truth, _ = exact_neighbours(features[among], features[1:20:2], 10, "cosine")
        assert np.isin(rows[rows >= 0], among).all()
        found = [len(set(a) & set(among[b])) / 10 for a, b in zip(rows, truth, strict=True)]
        assert np.mean(found) > (0.1 if "PCA" in kind else 0.7)


def test_plain_faiss_reads_the_file_and_finds_the_same(features, tmp_path):
    for kind in ("flat", "hnsw", "ivf", "IVF64_HNSW32,Flat"):
        built = build_index(features, IndexOptions(kind=kind))
        built.save(tmp_path / "index.faiss")
        plain = faiss.read_index(str(tmp_path / "index.faiss"))
        rows = plain.search(prepare(features[:50], "cosine"), 5)[1]
        assert np.array_equal(rows, built.search(features[:50], 5)[0])
        assert np.array_equal(
            load_index(tmp_path / "index.faiss", "cosine", 4000, 16).search(features[:50], 5)[0], rows
        )


def test_equal_rows_are_found_in_any_kind():
    for kind in ("flat", "hnsw", "IVF4_HNSW8,Flat"):
        built = build_index(np.ones((60, 8), np.float32), IndexOptions(kind=kind))
        rows, distances = built.search(np.ones((1, 8), np.float32), 5)
        assert (rows >= 0).all() and np.allclose(distances, 0) and len(set(rows[0].tolist())) == 5


def test_one_row_is_enough():
    built = build_index(np.ones((1, 4), np.float32), IndexOptions())
    assert built.search(np.ones((2, 4), np.float32), 1)[0].tolist() == [[0], [0]]


@pytest.mark.parametrize(
    ("kind", "message"), [("hsnw", "no FAISS factory string"), ("IVF4000,Flat", "cannot be built over 60 rows")]
)
def test_a_wrong_kind_is_one_line(kind, message):
    with pytest.raises(AesearchError, match=message):
        build_index(np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32), IndexOptions(kind=kind))


def test_a_damaged_or_foreign_file_is_refused(features, tmp_path):
    (tmp_path / "index.faiss").write_bytes(b"IxF2 nothing")
    with pytest.raises(AesearchError, match="damaged"):
        load_index(tmp_path / "index.faiss", "l2", 4000, 16)
    build_index(features[:100], IndexOptions()).save(tmp_path / "index.faiss")
    with pytest.raises(AesearchError, match="does not fit"):
        load_index(tmp_path / "index.faiss", "l2", 4000, 16)


@pytest.mark.parametrize(("options", "message"), [({"metric": "l3"}, "l3"), ({"min_recall": 1.5}, "min-recall")])
def test_wrong_options_are_refused(options, message):
    with pytest.raises(AesearchError, match=message):
        IndexOptions(**options)


def test_wrong_queries_name_the_numbers(features):
    built = build_index(features, IndexOptions())
    with pytest.raises(ValueError, match="dimension 16"):
        built.search(np.zeros((1, 3), np.float32), 1)
    with pytest.raises(ValueError, match="k = 9999"):
        built.search(features[:1], 9999)
