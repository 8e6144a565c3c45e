"""The public face: its names, its help, its examples, and what it does with tables of any kind."""

import ast
import doctest
import functools
import importlib
import importlib.util
import inspect
import os
import pkgutil
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from conftest import copy_of_small
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import retail_ci
from retail_ci.core.errors import ConfigError, DataError
from retail_ci.recommend import PersonalRecommender, Recommender
from retail_ci.report.reference import _docstring_parts, described

ZONES = [m.name for m in pkgutil.iter_modules(retail_ci.__path__) if m.ispkg]
SENTENCE = re.compile(r"[^\n]+: expected [^\n]+, found [^\n]+; [^\n]+\.")
OURS = {
    "customer_id": "Kunde",
    "product_id": "Artikel",
    "date": "Tag",
    "quantity": "Stück",
    "revenue": "Umsatz",
}
DOOR = [  # the calls that take a table
    "campaign_lists",
    "clean",
    "customer_features",
    "customer_lifetime_value",
    "CustomerSegmentation",
    "evaluate_recommenders",
    "feature_drift",
    "fit_recommender",
    "score_customers",
    "segment_migration",
]


# Names


def faces() -> dict[str, object]:
    return {"": retail_ci} | {z: importlib.import_module(f"retail_ci.{z}") for z in ZONES}


def test_a_name_means_one_thing():
    found = {}
    for zone, face in faces().items():
        rooms = {m.name for m in pkgutil.iter_modules(face.__path__)}
        for name in dir(face):
            assert name not in rooms, f"{zone}.{name} is a module and something else"
            found.setdefault(name, set()).add(id(getattr(face, name)))
    assert not {name for name, meanings in found.items() if len(meanings) > 1}
    assert set(DOOR) <= set(dir(retail_ci))


def test_the_import_takes_less_than_50_ms():
    words = [sys.executable, "-X", "importtime", "-c", "import retail_ci"]
    times = []
    for _turn in range(3):
        said = subprocess.run(words, capture_output=True, text=True, check=True).stderr
        line = next(text for text in said.splitlines() if text.endswith(" retail_ci"))
        times.append(int(line.split("|")[1]) / 1000)
    assert min(times) < 50, times


MADE = {  # what a call returns or raises: nobody makes one
    "CleanLog",
    "Evaluation",
    "SegmentMigration",
    *(name for name in dir(retail_ci) if name.endswith("Error")),
}
MINUTES = {"build_site", "run_chain"}  # too long for an example that is run; other tests make both


def public_names() -> dict[str, object]:
    """What can be called of every face."""
    names = {n: getattr(face, n) for face in faces().values() for n in dir(face)}
    return {n: thing for n, thing in names.items() if callable(thing)}


def members(owner: object) -> Iterator[tuple[str, object]]:
    """The owner; and of a class its public methods, inherited ones of this package too."""
    yield owner.__name__, owner
    classes = owner.__mro__ if inspect.isclass(owner) else ()
    for kind in classes:
        if kind.__module__.startswith("retail_ci"):
            for name, part in vars(kind).items():
                part = getattr(part, "__func__", getattr(part, "fget", part))
                if inspect.isfunction(part) and not name.startswith("_"):
                    yield f"{kind.__name__}.{name}", part


def entries(section: str) -> dict[str, tuple[str, str]]:
    """Name: its type and its description; `a, b : int` describes two."""
    told = described(section)
    heads = [line.partition(" : ") for line in section.splitlines() if re.match(r"\S", line)]
    return {
        name: (kind, told[names.lstrip("*")])
        for names, mark, kind in heads
        for name in (names.replace("*", "").split(", ") if mark else [names])
    }


def raised(thing: object) -> set[str]:
    """The errors of this package that the body itself raises."""
    if inspect.isclass(thing):
        return set()
    tree = ast.parse(textwrap.dedent(inspect.getsource(thing)))
    names = {
        node.exc.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and isinstance(node.exc.func, ast.Name)
    }
    return names & {"ConfigError", "DataError", "RunError", "TooFew"}


def has_shape(kind: str, words: str) -> bool:
    """Whether a table or array says its shape, or what a row of it is."""
    if not re.search(r"DataFrame|Series|ndarray", kind) or kind.startswith(("Mapping", "dict")):
        return True
    return "of shape" in kind or "row per" in words.lower()


def missing_help(name: str, thing: object) -> Iterator[str]:
    """What the help of a class, function or method does not say."""
    parts = _docstring_parts(inspect.getdoc(thing) or "")
    told = entries(parts.get("Parameters", "")) | entries(parts.get("Attributes", ""))
    # Python cannot tell what the constructor of an error takes; it is one text
    error = inspect.isclass(thing) and issubclass(thing, Exception)
    signature = inspect.Signature() if error else inspect.signature(thing)
    taken = {"exit_code"} if error else set(signature.parameters) - {"self", "cls"}
    known = {*taken, *(n for n in told if "Attributes" in parts)}
    yield from (f"{name}: {n} is not explained" for n in sorted(taken - set(told)))
    yield from (f"{name}: {n} is explained and not taken" for n in sorted(set(told) - known))
    for n, (kind, words) in told.items():
        if not kind or not words.endswith("."):
            yield f"{name}: {n} needs a type and a sentence, has {kind!r} and {words!r}"
        if not has_shape(kind, words):
            yield f"{name}: {n} has no shape: {kind}"
    returns = entries(parts.get("Returns", ""))
    if inspect.isfunction(thing) and signature.return_annotation not in ("None", None):
        if not returns:
            yield f"{name}: what it returns is not explained"
        for kind, (_, words) in returns.items():
            if not has_shape(kind, words):
                yield f"{name}: what it returns has no shape: {kind}"
    lacking = raised(thing) - set(described(parts.get("Raises", "")))
    yield from (f"{name}: {kind} is not among Raises" for kind in sorted(lacking))


def test_help_explains_every_public_name_and_method():
    missing = {
        fault
        for thing in public_names().values()
        for name, part in members(thing)
        for fault in missing_help(name, part)
    }
    assert not missing, "\n".join(sorted(missing))


def spoilt(log: pd.DataFrame, days: int = 3, *more: str) -> np.ndarray:
    """Show what the rule finds.

    Parameters
    ----------
    log : DataFrame
        A log.
    day : int
        Days.
    """
    raise DataError("No.")


def test_what_help_lacks_is_named():
    assert list(missing_help("spoilt", spoilt)) == [
        "spoilt: days is not explained",
        "spoilt: more is not explained",
        "spoilt: day is explained and not taken",
        "spoilt: log has no shape: DataFrame",
        "spoilt: what it returns is not explained",
        "spoilt: DataError is not among Raises",
    ]


CALLS = sorted(set(public_names()) - MADE)


@pytest.fixture(scope="module")
def project_folder(small, tmp_path_factory) -> Path:
    """A copy of the small project after its run, which examples may change."""
    return copy_of_small(small, tmp_path_factory.mktemp("examples") / "project").root


def run_example(thing: object, where: Path, monkeypatch) -> bool:
    """Run the example of a name in a folder; whether a line of it is skipped."""
    monkeypatch.chdir(where)
    monkeypatch.delenv("RETAIL_CI_ROOT", raising=False)
    names = dict(vars(sys.modules[thing.__module__]))
    [test] = doctest.DocTestFinder(recurse=False).find(thing, globs=names)
    assert test.examples, "no example"
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    said = []
    runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)
    return any(doctest.SKIP in example.options for example in test.examples)


@pytest.mark.parametrize("name", CALLS)
def test_the_example_in_the_help_is_true(name, project_folder, monkeypatch):
    assert run_example(public_names()[name], project_folder, monkeypatch) == (name in MINUTES)


METHODS = dict(m for thing in public_names().values() for m in members(thing) if "." in m[0])


@pytest.mark.parametrize("name", METHODS)
def test_the_example_of_a_method_is_true(name, project_folder, monkeypatch):
    assert not run_example(METHODS[name], project_folder, monkeypatch)


# Tables


def a_log() -> pd.DataFrame:
    """Forty customers over forty weeks, five kinds of rhythm, four products."""
    days = pd.date_range("2025-01-06", periods=40, freq="7D") + pd.Timedelta(hours=10)
    rows = [
        (f"C{c:02d}", f"P{(c + n) % 4}", day, 1 + n % 3, 5.0 + c + n % 5)
        for c in range(40)
        for n, day in enumerate(days[c % 3 : 40 - 20 * (c % 5 == 4) : 1 + c % 5])
    ]
    return pd.DataFrame(rows, columns=["customer_id", "product_id", "date", "quantity", "revenue"])


@pytest.fixture(scope="module")
def log() -> pd.DataFrame:
    return a_log()


LOG_CALLS = {
    "clean": lambda log, **more: retail_ci.clean(log, **more).transactions,
    "customer_features": retail_ci.customer_features,
    "segment_migration": lambda log, **more: (
        retail_ci.segment_migration(log, window_days=90, draws=2, **more).snapshots
    ),
    "customer_lifetime_value": lambda log, **more: retail_ci.customer_lifetime_value(
        log, draws=0, **more
    ),
    "fit_recommender": lambda log, **more: retail_ci.fit_recommender(
        log, model="popularity", **more
    ).recommend(k=2),
    "evaluate_recommenders": lambda log, **more: (
        retail_ci.evaluate_recommenders(["popularity"], log, resamples=5, **more).table
    ),
}
# By these two ways a log comes in; the other calls take the second.
DOORS = (LOG_CALLS["clean"], LOG_CALLS["customer_features"])
by_log_call = pytest.mark.parametrize("call", LOG_CALLS.values(), ids=LOG_CALLS)


@functools.cache
def answer_of(call) -> pd.DataFrame:
    """What a call says of the plain log."""
    return call(a_log())


class Stream:
    """A table of a library that nobody here knows, and that speaks Arrow's stream."""

    def __init__(self, table: pa.Table):
        self.table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)


def polars_frame(frame: pd.DataFrame):
    import polars

    return polars.from_pandas(frame)


GUISES = {
    "index that is not unique": lambda f: f.set_index(pd.Index([7] * len(f))),
    "categories": lambda f: f.astype(
        {c: "category" for c in ("customer_id", "product_id", "segment") if c in f}
    ),
    "nullable types": lambda f: f.convert_dtypes(),
    "Arrow types": lambda f: f.convert_dtypes(dtype_backend="pyarrow"),
    "sparse numbers": lambda f: f.astype(
        {c: pd.SparseDtype(f[c].dtype) for c in ("revenue", "recency", "monetary") if c in f}
    ),
    "periods": lambda f: f.assign(**{c: f[c].dt.to_period("h") for c in ("date",) if c in f}),
    "names that the engine cannot tell apart": lambda f: f.assign(
        **{"DATE": 1, "Recency": "x", "row": 1, "Damaged": 2, "damaged": 3, "": 4}
    ),
    "columns in another order": lambda f: f[f.columns[::-1]],
    "Arrow table": pa.Table.from_pandas,
    "Arrow stream": lambda f: Stream(pa.Table.from_pandas(f)),
    **({"polars": polars_frame} if importlib.util.find_spec("polars") else {}),
}
WORN_TOGETHER = (  # guises that leave each other as they are
    "categories",
    "sparse numbers",
    "periods",
    "names that the engine cannot tell apart",
    "columns in another order",
    "index that is not unique",
)


def worn(frame: pd.DataFrame) -> pd.DataFrame:
    """Several guises, one over the other."""
    return functools.reduce(lambda f, name: GUISES[name](f), WORN_TOGETHER, frame)


def by_turns(frame: pd.DataFrame) -> pd.DataFrame:
    """Nullable types and Arrow types, column about."""
    arrow = GUISES["Arrow types"](frame)[frame.columns[::2]]
    return GUISES["nullable types"](frame).assign(**dict(arrow.items()))


# A guise alone tells more where it fails: `clean` reads each of them, and the others read as it
# does; whatever is no frame of pandas comes to them as Arrow's stream.
FEW_GUISES = {
    " and ".join(WORN_TOGETHER): worn,
    "nullable types and Arrow types": by_turns,
    "Arrow stream": GUISES["Arrow stream"],
}
ALONE = os.environ.get("GUISES") == "all"  # each alone in every call, as `make soak` asks


@by_log_call
def test_every_guise_of_a_log_gives_the_same(log, call):
    plain = answer_of(call)
    for name, guise in (GUISES if ALONE or call is LOG_CALLS["clean"] else FEW_GUISES).items():
        pd.testing.assert_frame_equal(call(guise(log)), plain, obj=name)
    theirs = log.rename(columns=OURS)
    pd.testing.assert_frame_equal(call(theirs, columns=OURS), plain)


@by_log_call
def test_a_path_and_an_expression_give_the_same(log, call, tmp_path):
    import ibis

    plain = answer_of(call)
    path = tmp_path / "log.parquet"
    log.to_parquet(path)
    paths = (str(path), path) if call in DOORS else (path,)
    for table in (*paths, ibis.duckdb.connect().read_parquet(path)):
        found = call(table)
        found = found.execute() if isinstance(found, ibis.Table) else found
        pd.testing.assert_frame_equal(found, plain)


BAD_LOGS = {
    "other names": (lambda f: f.rename(columns=OURS), "'(customer_id|date)'"),
    "a case of its own": (
        lambda f: f.rename(columns=str.upper),
        r"\{'(customer_id': 'CUSTOMER_ID|date': 'DATE)'",
    ),
    "no names at all": (
        lambda f: f.set_axis(range(f.shape[1]), axis=1),
        "'(customer_id|date)'",  # `clean` can do without customers
    ),
    "no amount": (lambda f: f.drop(columns="revenue"), "a column 'price' or 'revenue'"),
    "the id as the index": (lambda f: f.set_index("customer_id"), r"call frame\.reset_index\(\)"),
    "truth for dates": (
        lambda f: f.assign(date=True),
        "'date' of the transactions: expected dates",
    ),
    "numbers for dates": (lambda f: f.assign(date=20250101), "expected dates"),
    "truth for numbers": (lambda f: f.assign(revenue=False), "'revenue' .*: expected numbers"),
    "dates for numbers": (
        lambda f: f.assign(quantity=f["date"]),
        "'quantity' .*: expected numbers",
    ),
    "fractions for ids": (lambda f: f.assign(customer_id=1.5), "'customer_id' .*: expected ids"),
    "no rows": (lambda f: f.head(0), "expected at least one line, found none"),
    "one name twice": (lambda f: pd.concat([f, f[["date"]]], axis=1), "2 columns called 'date'"),
    "a list": (lambda f: [1, 2], "expected a table"),
    "nothing": (lambda f: None, "expected a table"),
    "an array": (lambda f: f.to_numpy(), "expected a table"),
    "one column": (lambda f: f["revenue"], "expected a table"),
}


@by_log_call
def test_a_log_that_cannot_be_used_is_refused_in_one_sentence(log, call):
    for name, (spoil, words) in BAD_LOGS.items():
        with pytest.raises(DataError, match=words) as refused:
            call(spoil(log))
        assert SENTENCE.fullmatch(str(refused.value)), f"{name}: {refused.value}"


@by_log_call
def test_one_line_is_answered_or_refused_in_one_sentence(log, call):
    try:
        found = call(log.head(1))
    except DataError as refused:
        assert re.fullmatch(r"[^\n]+\.", str(refused)), refused
    else:
        assert len(found) == 1


@pytest.mark.parametrize("call", [c for n, c in LOG_CALLS.items() if n != "clean"])
def test_no_line_is_set_aside_in_silence(log, call):
    spoilt = log.assign(quantity=log["quantity"].where(log.index > 2, 0))
    with pytest.raises(DataError, match=r"found 3 of .* \(zero_quantity 3\); remove them first"):
        call(spoilt)


def test_a_name_that_is_none_of_ours_is_refused(log):
    with pytest.raises(DataError, match="did you mean 'customer_id'"):
        retail_ci.clean(log, columns={"custmer_id": "customer_id"})
    with pytest.raises(DataError, match="'Kundin' .our customer_id."):
        retail_ci.customer_features(log, columns={"customer_id": "Kundin"})


@by_log_call
def test_a_column_is_one_thing(log, call):
    for columns in ({"quantity": "revenue"}, {"price": "revenue"}, {"product_id": "customer_id"}):
        with pytest.raises(DataError, match="a column of its own for each of our names") as refused:
            call(log, columns=columns)
        assert SENTENCE.fullmatch(str(refused.value))


def test_a_name_need_not_be_text(log):
    plain = retail_ci.customer_features(log)
    number = log.rename(columns={"revenue": 5})
    found = retail_ci.customer_features(number, columns={"revenue": 5})
    pd.testing.assert_frame_equal(found, plain)
    pairs = log.set_axis(pd.MultiIndex.from_product([["a"], log.columns]), axis=1)
    found = retail_ci.customer_features(pairs, columns={c: ("a", c) for c in log})
    pd.testing.assert_frame_equal(found, plain)


def test_the_books_add_up(log):
    spoilt = log.assign(date=log["date"].astype("str"))
    spoilt.loc[3, "date"] = "2025-02-30"
    spoilt["transaction_id"] = [f"T{n}" for n in range(len(spoilt))]  # copies need a receipt
    spoilt = pd.concat([spoilt, spoilt.tail(5)], ignore_index=True)
    done = retail_ci.clean(spoilt)
    assert done.books.set_index("fate")["lines"].to_dict() == {
        "kept": len(log) - 1,
        "collapsed": 5,
        "rejected": 1,
    }
    assert done.rejected[["row", "reason"]].values.tolist() == [[4, "bad_date"]]
    assert done.transactions["revenue"].sum() == pytest.approx(log["revenue"].drop(3).sum())


# Tables of customers


@pytest.fixture(scope="module")
def features(log) -> pd.DataFrame:
    return retail_ci.customer_features(log)


@functools.cache
def fitted_once() -> retail_ci.CustomerSegmentation:
    """Segments of the plain log."""
    return retail_ci.CustomerSegmentation(n_clusters=3).fit(retail_ci.customer_features(a_log()))


def fitted_labels(table) -> pd.DataFrame:
    model = retail_ci.CustomerSegmentation(n_clusters=3).fit(table)
    return pd.DataFrame({"segment": model.labels_})


def predicted(table) -> pd.DataFrame:
    return pd.DataFrame({"segment": fitted_once().predict(table)})


def scored(table) -> pd.DataFrame:
    return retail_ci.score_customers(table, fitted_once())


CUSTOMER_CALLS = {  # what takes features, and a column that it needs
    "CustomerSegmentation.fit": (fitted_labels, "recency"),
    "CustomerSegmentation.predict": (predicted, "recency"),
    "score_customers": (scored, "customer_id"),
    "feature_drift": (lambda t: retail_ci.feature_drift(t, t), "recency"),
    "campaign_lists": (
        lambda t: retail_ci.campaign_lists(t.assign(segment="Lost") if hasattr(t, "assign") else t),
        "customer_id",
    ),
}
by_customer_call = pytest.mark.parametrize(
    "call, key", CUSTOMER_CALLS.values(), ids=list(CUSTOMER_CALLS)
)


@by_customer_call
def test_every_guise_of_a_customer_table_gives_the_same(features, call, key):
    table = features.assign(segment="Lost").drop(columns="short_history")
    plain = call(table)
    for name, guise in GUISES.items():
        pd.testing.assert_frame_equal(call(guise(table)), plain, obj=name)


@by_customer_call
def test_a_customer_table_that_cannot_be_used_is_refused_in_one_sentence(features, call, key):
    table = features[["customer_id", "recency", "frequency", "monetary"]].assign(segment="Lost")
    cases = {
        "other names": table.set_axis(list("abcde"), axis=1),
        "no names at all": table.set_axis(range(5), axis=1),
        "no rows": table.head(0),
        "one name twice": pd.concat([table, table[[key]]], axis=1),
        "a list": [1, 2],
    }
    if key == "recency":
        cases["text for numbers"] = table.assign(recency="a")
        cases["dates for numbers"] = table.assign(recency=pd.Timestamp("2025-01-01"))
    else:
        cases["fractions for ids"] = table.assign(customer_id=1.5)
    if call is fitted_labels:
        del cases["a list"]  # a list of rows is an array, which scikit-learn checks
    for name, spoilt in cases.items():
        with pytest.raises(DataError) as refused:
            call(spoilt)
        assert SENTENCE.fullmatch(str(refused.value)), f"{name}: {refused.value}"


def test_one_customer_is_answered_or_refused_in_one_sentence(features):
    one = features.head(1)
    with pytest.raises(DataError, match="need at least 3 customers .* found 1"):
        fitted_labels(one)
    assert len(predicted(one)) == len(scored(one)) == 1
    assert retail_ci.feature_drift(one, one)["state"].eq("calm").all()
    assert len(retail_ci.campaign_lists(one.assign(segment="Lost"))) == 1


def test_a_fitted_model_takes_no_other_shape(features):
    model = fitted_once()
    with pytest.raises(DataError, match="X: expected a frame .*, found an array of shape"):
        model.predict(features[["recency", "frequency", "monetary"]].to_numpy())
    with pytest.raises(DataError, match="expected a column 'monetary'"):
        model.transform(features.drop(columns="monetary"))
    numbers = retail_ci.CustomerSegmentation(n_clusters=3).fit(np.eye(5))
    with pytest.raises(DataError, match="X has 2 features, but .* 5 features"):
        numbers.predict(np.eye(2))
    with pytest.raises(DataError, match="X: expected an array of 5 columns"):
        numbers.predict(features)


def test_fit_predict_and_labels_agree(features):
    model = retail_ci.CustomerSegmentation(n_clusters=3, random_state=7)
    labels = model.fit_predict(features)
    assert (labels == model.labels_).all() and (labels == model.predict(features)).all()
    again = clone(model)
    assert again.get_params() == {
        "n_clusters": 3,
        "random_state": 7,
        "max_samples": 100_000,
        "window_days": 365,
    }
    assert (again.fit(features).labels_ == labels).all()


def test_lists_refuse_what_would_write_to_somebody_twice(features):
    twice = pd.concat([features.head(2), features.head(1)]).assign(segment="Lost")
    with pytest.raises(DataError, match="the segments: expected one row per customer_id, found 1"):
        retail_ci.campaign_lists(twice)
    with pytest.raises(DataError, match="control: expected a share from 0 to below 1, found 10"):
        retail_ci.campaign_lists(features.assign(segment="Lost"), control=10)


def test_drift_refuses_to_compare_what_only_one_side_has(features):
    with pytest.raises(DataError, match="the features after: expected a column 'monetary', as bef"):
        retail_ci.feature_drift(features, features.drop(columns="monetary"))


def test_axes_are_taken_and_returned(log):
    import matplotlib.pyplot as plt

    from retail_ci.customers import plot_migration
    from retail_ci.evaluate import plot_backtest, plot_metrics
    from retail_ci.evaluate.backtest import backtest

    states = retail_ci.segment_migration(log, window_days=90, draws=1).states
    _figure, ax = plt.subplots()
    assert plot_migration(states, ax=ax) is ax
    assert plot_migration(states).figure is not ax.figure
    models = ["personal", "popularity"]
    fresh = log.assign(product_id="M" + log["date"].dt.month.astype("str"))  # new every month
    measured = retail_ci.evaluate_recommenders(models, fresh, days=60, resamples=5)
    over_time = backtest(models, fresh, cuts=2, days=60, resamples=5)
    for plot, result in ((plot_metrics, measured), (plot_backtest, over_time)):
        _figure, pair = plt.subplots(2)
        drawn = plot(result, ax=pair)
        assert list(drawn) == list(pair) and [len(axis.containers) for axis in pair] == [2, 1]
        assert plot(result)[0].figure is not pair[0].figure
        for wrong in (3, ax, [ax], [1, 2]):
            with pytest.raises(DataError, match="ax: expected 2 matplotlib axes") as refused:
                plot(result, ax=wrong)
            assert SENTENCE.fullmatch(str(refused.value))
    plt.close("all")


# What a user may hand over by mistake


class Odd(Recommender):
    """A model whose scores are what it is told."""

    def __init__(self, scores: str = ""):
        self.scores = scores

    def _scores(self, rows):
        shape = (len(rows), len(self.data_.product_ids))
        made = {
            "nothing": None,
            "a list": [[1.0]],
            "a row": np.ones(shape[1]),
            "a column": np.ones((shape[0], 1)),
            "text": np.full(shape, "a"),
        }
        return made[self.scores]


@pytest.mark.parametrize("scores", ["nothing", "a list", "a row", "a column", "text"])
def test_scores_of_another_shape_or_type_are_refused(log, scores):
    words = rf"Odd\._scores: expected numbers of shape \({log['customer_id'].nunique()}, 4\)"
    with pytest.raises(DataError, match=words) as refused:
        Odd(scores).fit(log).recommend()
    assert SENTENCE.fullmatch(str(refused.value))


MISTAKES = {
    "recommend(3)": lambda m, log: m.recommend(3),
    "recommend(k='a')": lambda m, log: m.recommend(k="a"),
    "recommend(rules=3)": lambda m, log: m.recommend(rules=3),
    "recommend(block=3)": lambda m, log: m.recommend(block=3),
    "recommend(block_for=3)": lambda m, log: m.recommend(block_for=3),
    "recommend(recent=3)": lambda m, log: m.recommend(recent=3),
    "fit(products=3)": lambda m, log: m.fit(log, 3),
    "fit(segments=3)": lambda m, log: m.fit(log, segments=3),
    "fit(sensitive=3)": lambda m, log: m.fit(log, sensitive=3),
    "half_life=-1": lambda m, log: type(m)(half_life=-1),
    "half_life='a'": lambda m, log: type(m)(half_life="a"),
    "half_life=inf": lambda m, log: type(m)(half_life=float("inf")),
    "clean(tolerance='a')": lambda m, log: retail_ci.clean(log, tolerance="a"),
    "clean(duplicates='a')": lambda m, log: retail_ci.clean(log, duplicates="a"),
    "clean(max_rejected=2)": lambda m, log: retail_ci.clean(log, max_rejected=2),
    "clean(last_date='a')": lambda m, log: retail_ci.clean(log, last_date="a"),
    "clean(memory='a')": lambda m, log: retail_ci.clean(log, memory="a"),
    "clean(date_format='%Y')": lambda m, log: retail_ci.clean(log, date_format="%Y"),
    "clean(encoding='a')": lambda m, log: retail_ci.clean(log, encoding="a"),
    "cut_points=3": lambda m, log: retail_ci.customer_features(log, cut_points=3),
    "cut_points={'recensy'}": lambda m, log: retail_ci.customer_features(
        log, cut_points={"recensy": [1, 2, 3, 4]}
    ),
    "cut_points={'recency': [2]}": lambda m, log: retail_ci.customer_features(
        log, cut_points={"recency": [2]}
    ),
    "revenue of nothing": lambda m, log: retail_ci.customer_features(log.assign(revenue=0.0)),
}


@pytest.mark.parametrize("call", MISTAKES.values(), ids=list(MISTAKES))
def test_a_mistaken_argument_is_refused_in_words_of_the_call(log, call):
    """One sentence, which names a parameter and never a key of a config."""
    model = PersonalRecommender().fit(log)
    with pytest.raises((ConfigError, DataError)) as refused:
        call(model, log)
    assert re.fullmatch(r"[^\n]+[.?]", str(refused.value))
    assert not re.search(r"\b(data|rfm|recommender|campaigns)\.\w|the config", str(refused.value))


@pytest.mark.parametrize(
    "options",
    [{"consent": 3}, {"suppressed": [1]}, {"wave": 3}, {"random_state": "a"}, {"sensitive": 3}],
    ids=str,
)
def test_campaign_lists_refuse_a_mistaken_argument(options):
    people = pd.DataFrame({"customer_id": ["A"], "segment": ["Lost"]})
    with pytest.raises(DataError, match=f"^{next(iter(options))}: expected") as refused:
        retail_ci.campaign_lists(people, customers=people, **options)
    assert SENTENCE.fullmatch(str(refused.value))
    with pytest.raises(ConfigError, match="^consent: Unknown column 'segmnt'.* mean 'segment'"):
        retail_ci.campaign_lists(people, customers=people, consent="segmnt")


def test_a_metric_that_was_not_measured_is_refused(log):
    found = retail_ci.evaluate_recommenders(["popularity"], log, days=60, resamples=5)
    assert len(found.metric("any", "coverage")) == len(found.rivals("any", "ndcg")) == 1
    for task, metric, words in (
        ("any", "ndgc", "Unknown metric 'ndgc' in the evaluation; did you mean 'ndcg'"),
        ("ndcg", "ndcg", "Unknown task 'ndcg' in the evaluation; known: any, discovery"),
        ("any", 3, "Unknown metric '3'"),
    ):
        for call in (found.metric, found.rivals):
            with pytest.raises(DataError, match=words):
                call(task, metric)


def test_a_measure_that_cannot_be_is_refused(features):
    for value, words in ((np.inf, "finite numbers, found infinite"), (-np.inf, "finite numbers")):
        with pytest.raises(DataError, match=f"'monetary' of the features after: expected {words}"):
            retail_ci.feature_drift(features, features.assign(monetary=value))
    for column, words in (("recency", "days since"), ("frequency", "a number of purchases")):
        spoilt = features.assign(**{column: -3.0})
        with pytest.raises(
            DataError, match=f"{column!r} .*: expected {words}.*40 values below zero"
        ):
            retail_ci.CustomerSegmentation(n_clusters=2).fit(spoilt)


# Arguments


WRONG = {  # call: its arguments and values that none of them can have
    "customer_features": {
        "as_of": ["soon", "01.06.2025", 20250601, pd.NaT],
        "window_days": [0, 3.5, "365", None],
        "bins": [1, 100, "5"],
        "cut_points": ["x", {"recency": [1, 2, 3, float("nan")]}, {"recency": list("abcd")}],
    },
    "segment_migration": {
        "window_days": [-1, 90.5],
        "n_clusters": [0, 1, 2.5, "5"],
        "bins": [1],
        "draws": [0, "2"],
        "random_state": [-1, "a"],
    },
    "customer_lifetime_value": {
        "as_of": ["soon", pd.NaT],
        "margin": [-1, 0, 50, float("nan"), "0.3"],
        "draws": [-1, 2.5],
        "max_samples": [0, -1, 30.5],
        "random_state": [1.5, "a"],
    },
    "evaluate_recommenders": {
        "models": [None, 3, {"popularity"}, ["popularty"]],
        "cut": ["soon", pd.NaT],
        "days": [0, 1.5, "30"],
        "k": [0, "3"],
        "resamples": [0, "x"],
        "random_state": [-1],
    },
}


@pytest.mark.parametrize("name", WRONG)
def test_an_argument_that_makes_no_sense_is_refused_in_one_sentence(log, name):
    for argument, values in WRONG[name].items():
        for value in values:
            given = {"models": ["popularity"]} if name == "evaluate_recommenders" else {}
            with pytest.raises(retail_ci.RetailError, match=r"\A[^\n]+[.?]\Z"):
                getattr(retail_ci, name)(transactions=log, **{**given, argument: value})


def test_a_moment_with_a_zone_is_what_the_clock_showed(log):
    plain = retail_ci.customer_features(log, as_of="2025-06-01")
    zoned = retail_ci.customer_features(log, as_of=pd.Timestamp("2025-06-01", tz="Asia/Tokyo"))
    pd.testing.assert_frame_equal(zoned, plain)
    seen = log[log["date"] < "2025-06-01"]
    assert plain["monetary"].tolist() == seen.groupby("customer_id")["revenue"].sum().tolist()


def test_a_model_refuses_parameters_and_files_in_one_sentence(features, tmp_path):
    model = retail_ci.CustomerSegmentation
    for wrong in (
        {"n_clusters": 0},
        {"n_clusters": "5"},
        {"n_clusters": 2.5},
        {"max_samples": 2},
        {"max_samples": 9.5},
        {"random_state": -1},
        {"random_state": "x"},
    ):
        with pytest.raises(DataError, match=f"{list(wrong)[0]}: expected a whole number"):
            model(**{"n_clusters": 3, **wrong}).fit(features)
    for asked in (lambda m: m.predict(features), lambda m: m.save(tmp_path / "m.npz")):
        with pytest.raises(NotFittedError, match="expected a fitted model") as refused:
            asked(model())
        assert isinstance(refused.value, DataError)
    with pytest.raises(DataError, match="expected what save.. has written, found no file"):
        model.load(tmp_path / "m.npz")
    (tmp_path / "m.npz").write_text("x")
    with pytest.raises(DataError, match="expected what save.. has written, found something else"):
        model.load(tmp_path / "m.npz")
    for other in (None, "m.npz", features):
        with pytest.raises(DataError, match="model: expected a fitted CustomerSegmentation"):
            retail_ci.score_customers(features, other)


def test_ids_are_looked_up_in_any_table_and_once(features):
    model = retail_ci.CustomerSegmentation(n_clusters=3).fit(features)
    plain = retail_ci.score_customers(features, model)
    ids = features[["customer_id"]]
    for name, guise in GUISES.items():
        found = retail_ci.score_customers(ids, model, guise(features))
        pd.testing.assert_frame_equal(found, plain, obj=name)
    numbered = features.assign(customer_id=np.arange(len(features), dtype=float))
    found = retail_ci.score_customers(pd.DataFrame({"customer_id": [3.0, 99.0]}), model, numbered)
    assert found["segment"].tolist() == [plain["segment"][3], "Unknown"]
    with pytest.raises(DataError, match="the features: expected one row per customer_id, found 2"):
        retail_ci.score_customers(ids, model, pd.concat([features, features.head(2)]))


def test_a_product_listed_twice_does_not_count_twice(log):
    products = pd.DataFrame({"product_id": ["P0", "P1", "P2", "P3"], "category": list("aabb")})
    found = retail_ci.customer_features(log, products).set_index("customer_id")
    bought = log.groupby("customer_id")["product_id"].nunique()
    assert found["product_variety"].tolist() == bought[found.index].tolist()
    with pytest.raises(DataError, match="the products: expected one row per product_id, found 1"):
        retail_ci.customer_features(log, pd.concat([products, products.head(1)]))


def test_the_advice_names_no_column_that_is_another_of_ours(features):
    short = features[["customer_id", "recency"]]
    with pytest.raises(DataError, match="'your name': 'frequency'"):
        retail_ci.CustomerSegmentation().fit(short)


def test_a_sensitive_product_is_never_offered():
    segments = pd.DataFrame({"customer_id": ["A"], "segment": ["Lost"]})
    lists = pd.DataFrame({"customer_id": "A", "product_id": ["1", "2"], "rank": [1, 2]})
    products = pd.DataFrame(
        {"product_id": [1, 2], "product_name": ["tea", "pills"], "code": [7.0, 9.0]}
    )
    for sensitive in (
        {"product_name": "pills"},
        {"product_name": ["pills"]},
        {"code": [9]},
        {"product_id": [2]},
    ):
        found = retail_ci.campaign_lists(segments, lists, products, sensitive=sensitive)
        assert found["product_1"].tolist() == ["1"] and found["product_2"].isna().all()
    with pytest.raises(DataError, match="expected a products table with 'code', found no"):
        retail_ci.campaign_lists(segments, lists, sensitive={"code": [9]})
    with pytest.raises(DataError, match="sensitive: expected .product column: values., found"):
        retail_ci.campaign_lists(segments, lists, products, sensitive=["pills"])
    twice = pd.concat([lists, lists.head(1)])
    with pytest.raises(DataError, match="expected each product once per customer, found 1 more"):
        retail_ci.campaign_lists(segments, twice, products)
    nameless = segments.assign(segment=None)
    with pytest.raises(DataError, match="expected a segment for each customer, found 1 without"):
        retail_ci.campaign_lists(nameless)
    for control in ("0.1", None, -1, float("nan")):
        with pytest.raises(DataError, match="control: expected a share"):
            retail_ci.campaign_lists(segments, control=control)


def test_lists_that_know_nobody_score_nothing(log):
    empty = pd.DataFrame({"customer_id": ["?"], "product_id": ["?"], "rank": [1]})

    class Stranger:
        def fit(self, transactions):
            return self

        def recommend(self, customers, k=10):
            return empty

    models = {"object": Stranger(), "table": empty, "stream": Stream(pa.Table.from_pandas(empty))}
    found = retail_ci.evaluate_recommenders(models, log, resamples=5)
    assert (found.metric("any").set_index("model")["value"] == 0).all()


def test_a_missing_segment_does_not_stop_drift(features):
    before = features.assign(segment=["a", None] * 20)
    found = retail_ci.feature_drift(before, features.assign(segment="a")).set_index("feature")
    assert found.loc["segment", "psi"] == 0
