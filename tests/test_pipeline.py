"""From rows to labels and back: training, files, search, export, explanations."""

import json
import zipfile
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from pipelines import SCHEMA, make_rows, trained, without_target, write_csv

import fsparse
from fsparse import Pipeline, export, load_exported, nn, train_table
from fsparse.checkpoint import CheckpointError
from fsparse.metrics import inverse_propensities
from fsparse.pipeline import Search, TablePredictor, default_model
from fsparse.tabular import read_csv

TEST = without_target(make_rows(200, seed=1))
HEADS = ["softmax", "wide"]
SMALL = fsparse.tabular.Schema(
    {"title": SCHEMA.columns["title"]}, target="kind", num_features=128
)


@pytest.mark.parametrize("head", HEADS)
def test_it_learns_the_rule(head):
    pipeline = trained(head)
    assert pipeline.figures["p@1"] > 0.9
    figures = pipeline.evaluate(TEST, ["p@1", "hit@2"])
    right = [
        best.label == row["kind"]
        for (best,), row in zip(pipeline.predict(TEST), TEST, strict=True)
    ]
    assert figures["p@1"] == pytest.approx(np.mean(right))
    assert figures["p@1"] > 0.9
    assert figures["hit@2"] >= figures["p@1"]


def test_scores_of_few_labels_are_probabilities():
    for best in trained().predict(TEST[:20], k=3):
        scores = [score for _, score in best]
        assert sum(scores) == pytest.approx(1, abs=1e-6)
        assert scores == sorted(scores, reverse=True)
        assert {label for label, _ in best} == {"mug", "lamp", "book"}


@pytest.mark.parametrize("count", [0, 1, 2, 3, 255, 256, 257])
def test_predictions_do_not_depend_on_how_many_are_asked_for(count):
    rows = (TEST * 2)[:count]
    found = trained().predict(rows)
    assert [best[0].label for best in found] == [
        trained().predict([row])[0][0].label for row in rows
    ]


@pytest.mark.parametrize("head", HEADS)
def test_what_was_saved_predicts_the_same(head, tmp_path):
    pipeline, path = trained(head), tmp_path / "model"
    pipeline.save(path)
    loaded = Pipeline.load(path)
    assert loaded.model == pipeline.model
    assert loaded.figures == pipeline.figures
    assert loaded.predict(TEST, 2) == pipeline.predict(TEST, 2)


def test_a_model_file_holds_arrays_and_json_alone(tmp_path):
    trained().save(tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "model") as archive:
        names = archive.namelist()
        manifest = json.loads(archive.read("manifest.json"))
    assert all(name.endswith((".npy", ".json")) for name in names)
    assert manifest["metadata"]["model"]["type"] == "Classifier"


def test_damage_is_found(tmp_path):
    path = tmp_path / "model"
    trained("wide").save(path)
    whole = path.read_bytes()
    for at in range(1000, len(whole), len(whole) // 20):
        path.write_bytes(whole[:at])
        with pytest.raises(CheckpointError):
            Pipeline.load(path)
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 1
    path.write_bytes(changed)
    with pytest.raises(CheckpointError):
        Pipeline.load(path)


def test_what_is_no_model_is_refused(tmp_path):
    fsparse.checkpoint.save(tmp_path / "other", {}, {"kind": "else"})
    with pytest.raises(CheckpointError, match=r'expected fsparse-model.*got "else"'):
        Pipeline.load(tmp_path / "other")
    with pytest.raises(FileNotFoundError):
        Pipeline.load(tmp_path / "none")


def test_a_model_of_an_unknown_layer_is_refused(tmp_path):
    path = tmp_path / "model"
    trained().save(path)
    metadata = fsparse.checkpoint.load_metadata(path)
    metadata["model"]["head"]["type"] = "Secret"
    fsparse.checkpoint.save(path, {}, metadata)
    with pytest.raises(CheckpointError, match="got 'Secret'"):
        Pipeline.load(path)


def test_sparse_search_finds_what_exact_search_finds(tmp_path):
    exact = trained("wide")
    sparse = exact.with_search(Search(size=3, num_probes=4))
    pairs = zip(sparse.predict(TEST), exact.predict(TEST), strict=True)
    same = [found[0].label == wanted[0].label for found, wanted in pairs if found]
    assert len(same) > len(TEST) / 2  # few labels have one hash table
    assert np.mean(same) > 0.8
    sparse.save(tmp_path / "model")
    loaded = Pipeline.load(tmp_path / "model")
    assert loaded.search == Search(3, 4)
    assert loaded.predict(TEST) == sparse.predict(TEST)
    assert loaded.with_search(None).predict(TEST, 3) == exact.predict(TEST, 3)


def test_a_head_without_hash_tables_has_no_sparse_search():
    with pytest.raises(ValueError, match="must be a SparseLinear; got Softmax"):
        trained().with_search(Search(1))
    assert trained().with_search(None) is trained()


@pytest.mark.parametrize("head", HEADS)
def test_exported(head, tmp_path):
    pipeline, path = trained(head), tmp_path / "exported"
    export(pipeline, path, k=2, batch_sizes=(1, 8))
    loaded = load_exported(path)
    for rows in ([], TEST[:1], TEST[:5], TEST[:30]):
        found, expected = loaded.predict(rows, 2), pipeline.predict(rows, 2)
        assert [[p.label for p in best] for best in found] == [
            [p.label for p in best] for best in expected
        ]
        scores = [[p.score for p in best] for best in found]
        np.testing.assert_allclose(
            scores, [[p.score for p in best] for best in expected], rtol=1e-5
        )
    with pytest.raises(ValueError, match="k must be from 1 to 2; got 3"):
        loaded.predict(TEST, 3)


def test_exported_with_hash_tables(tmp_path):
    sparse = trained("wide").with_search(Search(3, 4))
    export(sparse, tmp_path / "exported", k=1, batch_sizes=(4,))
    found = load_exported(tmp_path / "exported").predict(TEST)
    labels = lambda best: [[p.label for p in b] for b in best]  # noqa: E731
    assert labels(found) == labels(sparse.predict(TEST))


@pytest.mark.parametrize("count", [1, 3, 9])
def test_what_was_exported_answers_requests(tmp_path, count):
    pipeline = trained()
    export(pipeline, tmp_path / "exported", k=2, batch_sizes=(1, 4))
    exported = load_exported(tmp_path / "exported")
    found, expected = (
        TablePredictor(model, "mugs", max_batch=4, k=2).predict(
            [*TEST[:count], {"title": "red"}, 7]
        )
        for model in (exported, pipeline)
    )
    labels = lambda answers: [[p["label"] for p in best] for best in answers[:count]]  # noqa: E731
    assert labels(found) == labels(expected)
    assert list(map(str, found[count:])) == list(map(str, expected[count:]))


def test_bad_exports(tmp_path):
    with pytest.raises(ValueError, match="k must be from 1 to 3; got 4"):
        export(trained(), tmp_path / "x", k=4)
    with pytest.raises(ValueError, match="batch_sizes must be positive"):
        export(trained(), tmp_path / "x", k=1, batch_sizes=())
    trained().save(tmp_path / "model")
    with pytest.raises(CheckpointError, match="expected fsparse-exported"):
        load_exported(tmp_path / "model")


def logit_of(pipeline, features, label):
    """Of a label, for one row of features."""
    ids, weights = features.ids[None], features.values[None]
    batch = fsparse.data.Batch(ids, weights, np.zeros((1, 1)))
    h, _ = pipeline.model.encode(pipeline.params, pipeline.state, batch)
    logits, _ = pipeline.model.head.apply(pipeline.params["head"], (), h)
    return float(logits[0, pipeline.schema.label_names.index(label)])


def test_reasons_are_what_the_logit_loses_without_a_column():
    pipeline, row = trained(), TEST[0]
    reasons = {r.column: r for r in pipeline.explain(row, "mug")}
    assert set(reasons) == {"title", "price", "group"}
    assert reasons["title"].value == row["title"]
    whole = pipeline.schema.encode_features([row])
    for name, kind in pipeline.schema.schema.columns.items():
        alone = replace(pipeline.schema.schema, columns={name: kind})
        part = replace(pipeline.schema, schema=alone).encode_features([row])
        left = dict(zip(whole.ids.tolist(), whole.values.tolist(), strict=True))
        for i, value in zip(part.ids.tolist(), part.values.tolist(), strict=True):
            left[i] -= value
        kept = {i: value for i, value in left.items() if abs(value) > 1e-6}
        rest = fsparse.data.from_lists([list(kept)], 512, [list(kept.values())])
        lost = logit_of(pipeline, whole, "mug") - logit_of(pipeline, rest, "mug")
        assert reasons[name].weight == pytest.approx(lost, abs=1e-3)


def test_the_word_that_decides_is_the_reason():
    row = {"title": "small red old thing", "price": 9.0, "group": "g"}
    assert trained().predict([row])[0][0].label == "mug"
    assert max(trained().explain(row), key=lambda r: r.weight).column == "title"
    with pytest.raises(ValueError, match=r"one of the 3 .* got 'cup'"):
        trained().explain(row, "cup")


def test_from_a_file_with_a_schema_that_is_inferred(tmp_path):
    path = write_csv(tmp_path / "rows.csv", make_rows(60))
    options = {"width": 4, "epochs": 1, "progress": False}
    first = train_table(path, "kind", **options)
    again = train_table(path, "kind", **options)
    assert first.figures == again.figures
    assert set(first.schema.schema.columns) == {"title", "price"}
    held = train_table(path, "kind", validation=path, **options)
    assert set(held.figures) == {"loss", "p@1"}
    assert train_table(path, "kind", validation=0, **options).figures == {}


def test_a_table_is_read_once_for_its_schema_and_once_for_all_else():
    class Reader:
        num_passes = 0

        def __iter__(self):
            self.num_passes += 1
            yield from (make_rows(30), make_rows(30, seed=1))

    options = {"width": 4, "epochs": 1, "progress": False}
    reader = Reader()
    train_table(reader, schema=SMALL, **options)
    assert reader.num_passes == 1
    train_table(reader, "kind", **options)
    assert reader.num_passes == 3


def test_figures_are_those_of_the_rows_that_were_held_out(tmp_path):
    held = write_csv(tmp_path / "held.csv", make_rows(50, seed=2))
    options = {"width": 4, "epochs": 3, "progress": False, "validation": held}
    metrics = ["p@1", "loss", "psp@1"]
    kept = train_table(make_rows(200), schema=SMALL, metrics=metrics, **options)
    assert kept.figures == pytest.approx(kept.evaluate(held, metrics), rel=1e-5)
    last = train_table(make_rows(200), "kind", keep_best=None, **options)
    assert last.figures == pytest.approx(last.evaluate(held), rel=1e-5)


def test_rows_of_files_and_readers_are_predicted_and_judged_alike(tmp_path):
    path = write_csv(tmp_path / "rows.csv", TEST)
    odd = tmp_path / "odd.csv"
    odd.write_text(path.read_text().replace(",", "\t"), encoding="utf-16")
    pipeline, reader = trained(), read_csv(odd, delimiter="\t", encoding="utf-16")
    for source in (path, str(path), reader, read_csv(path, chunk_rows=7)):
        assert pipeline.predict(source, 2) == pipeline.predict(TEST, 2)
        assert pipeline.evaluate(source) == pipeline.evaluate(TEST)
    with pytest.raises(TypeError, match=r"Pipeline.predict: .* got generator"):
        pipeline.predict(row for row in TEST)


def test_bad_rows_can_be_left_out_of_an_evaluation():
    bad = [*TEST[:20], {**TEST[20], "price": "dear"}]
    with pytest.raises(ValueError, match=r"row 20: column 'price' .*strict=False"):
        trained().evaluate(bad)
    with pytest.warns(UserWarning, match="1 malformed rows"):
        found = trained().evaluate(bad, strict=False)
    assert found == trained().evaluate(TEST[:20])


def test_rare_labels_weigh_more_as_often_as_the_fit_saw_them(tmp_path):
    rows = without_target(make_rows(600))
    counts = Counter(row["kind"] for row in rows)
    trained().save(tmp_path / "model")
    loaded = Pipeline.load(tmp_path / "model")
    names = loaded.schema.label_names
    weights = inverse_propensities(np.array([counts[n] for n in names]), 600)
    weight = dict(zip(names, weights.tolist(), strict=True))
    gained, best = 0.0, 0.0
    for row, ((found, _),) in zip(TEST, loaded.predict(TEST), strict=True):
        gained += weight[found] * (found == row["kind"])
        best += weight[row["kind"]]
    assert loaded.evaluate(TEST, ["psp@1"])["psp@1"] == pytest.approx(gained / best)


def test_a_model_of_a_small_table_is_a_small_file(tmp_path):
    pipeline = train_table(make_rows(60), "kind", epochs=1, progress=False)
    pipeline.save(tmp_path / "model")
    embeddings = 4 * 4096 * 128  # bytes of the least number of features, by the width
    assert (tmp_path / "model").stat().st_size < 1.1 * embeddings
    loaded = Pipeline.load(tmp_path / "model")
    assert loaded.predict(make_rows(9), 3) == pipeline.predict(make_rows(9), 3)


def test_a_schema_takes_the_features_of_the_model():
    schema = replace(SMALL, num_features=None)
    model = nn.extreme_classifier(300, 3, width=4, num_negatives=2)
    options = {"schema": schema, "model": model, "epochs": 1, "progress": False}
    assert train_table(make_rows(60), **options).schema.num_features == 300


def test_rows_without_the_only_label_are_negative_ones():
    rows = [{"x": x, "y": ["yes"] * (x in "ab")} for x in "abcd" * 50]
    columns = {"x": SCHEMA.columns["group"]}
    schema = fsparse.tabular.Schema(columns, "y", fsparse.tabular.multi_label())
    options = {"epochs": 10, "learning_rate": 0.02, "width": 8, "progress": False}
    pipeline = train_table(rows, schema=schema, **options)
    assert pipeline.figures["auc"] == 1
    (((_, yes),), ((_, no),)) = pipeline.predict([{"x": "a"}, {"x": "d"}])
    assert no < 0.1 < 0.9 < yes


def test_from_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.Table.from_pylist(make_rows(60)), path)
    pipeline = train_table(path, "kind", width=4, epochs=1, progress=False)
    assert set(pipeline.schema.schema.columns) == {"title", "price"}


def test_the_best_loss_is_kept_and_small_data_have_small_batches():
    pipeline = train_table(make_rows(100), schema=SMALL, width=8, progress=False)
    more = train_table(make_rows(100), schema=SMALL, width=8, epochs=1, progress=False)
    assert pipeline.figures["loss"] < more.figures["loss"]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_of_two_rows_one_is_held_out(count):
    options = {"schema": SMALL, "width": 4, "progress": False}
    pipeline = train_table(make_rows(count), **options)
    assert bool(pipeline.figures) == (count > 1)
    assert train_table(make_rows(count), validation=None, **options).figures == {}


def test_a_class_that_comes_late_is_no_other_class(tmp_path):
    rows = [{"x": i, "kind": "a" if i % 2 else "b"} for i in range(10_500)]
    path = write_csv(tmp_path / "rows.csv", [*rows, {"x": 1, "kind": "c"}])
    pipeline = train_table(path, "kind", width=2, steps=1, progress=False)
    assert pipeline.schema.label_names == ("a", "b", "c")


def test_many_labels_get_a_wide_head():
    rows = [{"x": str(i), "y": f"label {i}"} for i in range(2500)]
    schema = fsparse.tabular.Schema({"x": SCHEMA.columns["group"]}, target="y")
    model = default_model(schema.fit(rows))
    assert isinstance(model.head, nn.SparseLinear)
    assert model.head.num_labels == 2500
    assert isinstance(default_model(trained().schema).head, nn.Softmax)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: train_table([], "kind", schema=SCHEMA), "got both"),
        (lambda: train_table([]), "got neither"),
        (lambda: train_table([{"x": 1}], "z"), "must have the column 'z'; got 'x'"),
        (lambda: train_table([], schema=SCHEMA), "at least one good row"),
        (
            lambda: train_table(TEST, schema=SCHEMA, validation=1.5),
            r"must be in \[0, 1\); got 1.5",
        ),
        (lambda: trained().predict(TEST, k=4), "k must be at most 3.*got 4"),
        (lambda: trained().predict([{"title": "x"}]), "price"),
        (lambda: trained().evaluate(TEST, ["accuracy"]), "got 'accuracy'"),
        (
            lambda: trained().evaluate(TEST, history="old"),
            "history must be 'continued' or 'new'; got 'old'",
        ),
    ],
)
def test_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_model_must_fit_the_schema():
    pipeline = trained()
    model = default_model(pipeline.schema, width=16)
    other = nn.Classifier(model.body, nn.Softmax(16, 4))
    with pytest.raises(ValueError, match="num_labels=3; got 4"):
        Pipeline(pipeline.schema, other, pipeline.params, pipeline.state)


def test_the_model_must_have_the_features_of_the_schema():
    model = nn.extreme_classifier(100, 3, width=16)
    with pytest.raises(ValueError, match="num_features=512; got 100"):
        train_table(TEST, schema=SCHEMA, model=model)


def test_what_can_be_read_once_is_refused():
    with pytest.raises(
        TypeError, match="must be a path, a reader or a list of dicts; got gen"
    ):
        train_table((row for row in TEST), schema=SCHEMA)


def test_a_search_scores_at_least_what_is_asked_for():
    with pytest.raises(ValueError, match="size must be at least 1"):
        trained("wide").with_search(Search(0))
    with pytest.raises(ValueError, match="k must be at most 1, the labels that"):
        trained("wide").with_search(Search(1)).predict(TEST, 2)


def test_the_summary_names_columns_layers_and_figures():
    text = trained().summary()
    for part in ("title (text)", "price (numerical)", "3 labels", "Softmax", "p@1"):
        assert part in text
