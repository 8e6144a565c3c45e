"""The registry of models: every row can be published, promoted and served, and a row that is added
is found wherever models are named.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn.base
from conftest import Project, leave_examples_out, make_project
from fastapi.testclient import TestClient

from retail_ci.core.config import MODELS, Config, RecommenderConfig, load_config
from retail_ci.core.errors import ConfigError
from retail_ci.core.runs import Run, load
from retail_ci.evaluate.offline import evaluate
from retail_ci.recommend.base import Recommender, model_class
from retail_ci.recommend.hybrid import WeightedHybrid, configured
from retail_ci.recommend.ranker import Ranker
from retail_ci.serve.api import Settings, _make_app
from retail_ci.serve.bundle import Bundle, current_bundle, recommend
from retail_ci.serve.promotion import promote

ROOT = Path(__file__).parents[1]
every_model = pytest.mark.parametrize("name", list(MODELS))

# A model as somebody adds it: one class with one method, and its row.
DUMMY = '''
import numpy as np

from retail_ci.core.config import MODELS, Model
from retail_ci.recommend.base import Recommender


class ByName(Recommender):
    """The products in the order of their ids, from one on."""

    method = "by name"
    reason = "next in the alphabet"

    def __init__(self, start: int = 0):
        self.start = start

    def _scores(self, rows):
        width = len(self.data_.product_ids)
        scores = np.roll(np.arange(width, 0, -1, dtype=np.float32), self.start)
        return np.broadcast_to(scores, (len(rows), width))
'''
ROW = """
from retail_ci.core.config import MODELS, Model

MODELS["by_name"] = Model("by_name:ByName", "By name", grid={"start": [0, 3]})
"""


def shop_log(seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fifty customers with tastes, weekly, over half a year; and what they can buy."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(50), 26)
    day = np.tile(np.arange(0, 182, 7), 50) + rng.integers(0, 7, len(who))
    log = pd.DataFrame(
        {
            "customer_id": [f"C{i:03}" for i in who],
            "product_id": [f"P{i:02}" for i in (who % 5 * 4 + rng.geometric(0.4, len(who))) % 20],
            "date": pd.Timestamp("2025-01-01") + pd.to_timedelta(day, unit="D"),
            "quantity": 1.0,
        }
    )
    shelf = pd.DataFrame({"product_id": [f"P{i:02}" for i in range(20)]}).assign(
        category=lambda t: np.where(t.index % 2, "skin", "hair"), price=9.0
    )
    return log.assign(price=9.0), shelf


def finished(folder: Path, name: str, log: pd.DataFrame, shelf: pd.DataFrame) -> Run:
    """What a promotion reads of a run that has published a model."""
    run = Run(Config(name="trial"), folder / name)
    run.config.recommender = RecommenderConfig(production=name)
    model = configured(run.config.recommender).fit(log, shelf)
    people = pd.DataFrame({"customer_id": model.data_.customer_ids}).assign(
        segment="Champions", r_score=5, f_score=5, m_score=5, rfm_score="555", action="thank"
    )
    tables = {
        "transactions": log,
        "products": shelf,
        "recommender": model.to_arrays(),
        "recommendations": model.recommend(k=5),
        "segments": people,
        "segment_metrics": {"profiles": [], "stability": {"value": 0.9}},
        "ranking_metrics": {"production": name},
        "data_metrics": {
            "rows_in": len(log),
            "kept": len(log),
            "rejected": 0,
            "collapsed": 0,
            "first_date": "2025-01-01",
            "last_date": "2025-07-02",
            "customers": 50,
            "baskets": len(log),
        },
    }
    for artefact, value in tables.items():
        run.write(artefact, value)
    return run


# ---- every row ----


def test_every_row_names_a_recommender_of_its_own_kind():
    for name, row in MODELS.items():
        assert issubclass(model_class(name), Recommender) and row.label
        assert row.decides in ("any", "discovery")
    assert len({row.label for row in MODELS.values()}) == len(MODELS)
    assert not issubclass(WeightedHybrid, Ranker), "it extends nothing of the ranker"


@every_model
def test_a_model_speaks_as_scikit_learn_does(name):
    model = configured(RecommenderConfig(), name)
    copy = sklearn.base.clone(model)
    assert copy is not model and copy.get_params() == model.get_params()
    for parameter, value in model.get_params().items():
        assert getattr(model.set_params(**{parameter: value}), parameter) == value
    with pytest.raises(ConfigError, match="Unknown parameter 'seeed'"):
        model.set_params(seeed=1)


@every_model
def test_every_model_is_published_promoted_and_answers(name, tmp_path):
    log, shelf = shop_log()
    run = finished(tmp_path, name, log, shelf)
    yes, version, checks = promote(run, tmp_path / "serving")
    assert yes, [c for c in checks if not c.passed]
    bundle = Bundle(current_bundle(tmp_path / "serving"))
    assert (bundle.version, bundle.card["recipe"], bundle.card["label"]) == (
        version,
        name,
        MODELS[name].label,
    )
    published = run.read("recommendations")
    for who in ("C000", "C049"):
        lines = recommend(bundle, who, 5)["recommendations"]
        own = published[published["customer_id"] == who]
        assert [line["product_id"] for line in lines] == own["product_id"].tolist()
        assert np.allclose([line["score"] for line in lines], own["score"], atol=1e-6)
        assert [line["reason"] for line in lines] == own["reason"].tolist()
        assert all(line["reason"] and line["method"] for line in lines)
    stranger = recommend(bundle, "nobody", 5)
    assert not stranger["known_customer"] and len(stranger["recommendations"]) == 5
    assert {line["method"] for line in stranger["recommendations"]} == {"popular"}


def test_two_processes_write_the_bundle_that_one_writes(tmp_path):
    run = finished(tmp_path, "personal", *shop_log())
    bundles = []
    for workers in (1, 2):
        yes, version, _ = promote(run, tmp_path / f"serving{workers}", workers=workers)
        bundles.append(tmp_path / f"serving{workers}" / version)
        assert yes
    one, two = (
        {p.name: p.read_bytes() for p in bundle.rglob("*") if p.is_file()} for bundle in bundles
    )
    assert set(one) == set(two) and len(one) > 10
    assert [name for name in one if one[name] != two[name]] in ([], ["card.json", "manifest.json"])


def test_one_recipe_is_compared_with_any_other(tmp_path):
    log, shelf = shop_log()
    assert promote(finished(tmp_path, "personal", log, shelf), tmp_path / "serving")[0]
    yes, _, checks = promote(finished(tmp_path, "random", log, shelf), tmp_path / "serving")
    lost = [c.name for c in checks if not c.passed]
    assert not yes and any(n.startswith("any: not worse than the recipe of m") for n in lost)


@pytest.mark.parametrize(
    "setting, sentence",
    [
        ("production=popularty", "Unknown model 'popularty' in recommender.production; did you"),
        ("production=null", "Config key 'recommender.production' must be text"),
        ("parameters={rankr: {}}", "Unknown model 'rankr' in recommender.parameters; did you"),
        ("weights={contnt: 1}", "did you mean 'content'"),
    ],
)
def test_an_unknown_name_is_refused_when_the_config_is_read(setting, sentence):
    with pytest.raises(ConfigError, match=sentence):
        load_config(ROOT / "configs/small.yaml", [f"recommender.{setting}"])
    assert (
        load_config(
            ROOT / "configs/small.yaml", ["recommender.production=popularity"]
        ).recommender.production
        == "popularity"
    )


# ---- somebody's own model ----


class Listed:
    """A guest that looks up lists, with both parameters of `recommend`."""

    def __init__(self, source: Recommender):
        self.source = source

    def fit(self, transactions, products):
        self.source.fit(transactions, products)

    def recommend(self, customers, k, exclude_purchased):
        return self.source.recommend(customers, k, exclude_purchased)[
            ["customer_id", "product_id", "rank"]
        ]


def test_a_guest_with_our_lists_is_measured_as_ours():
    log, shelf = shop_log()
    found = evaluate(
        {"guest": Listed(configured(RecommenderConfig(), "ease")), "ease": "ease"},
        log,
        shelf,
        resamples=20,
    )
    values = found.table.set_index(["task", "model", "metric"])["value"].sort_index()
    for task in ("any", "discovery"):
        pd.testing.assert_series_equal(values[task, "guest"], values[task, "ease"])


def test_finished_lists_are_measured_as_the_model_that_made_them():
    log, shelf = shop_log()
    cut = log["date"].max() - pd.Timedelta(days=30)
    model = configured(RecommenderConfig(), "popularity").fit(log[log["date"] <= cut], shelf)
    lists = model.recommend(k=20)[["customer_id", "product_id", "rank"]].sample(
        frac=1, random_state=1
    )
    found = evaluate({"sent": lists, "popularity": "popularity"}, log, shelf, resamples=20)
    values = found.table.set_index(["task", "model", "metric"])["value"].sort_index()
    for task in ("any", "discovery"):
        pd.testing.assert_series_equal(values[task, "sent"], values[task, "popularity"])


# ---- a row that is added ----


@pytest.fixture(scope="module")
def added(tmp_path_factory) -> tuple[Project, dict[str, str]]:
    """A project whose processes know one more model, with a small run that publishes it."""
    folder = tmp_path_factory.mktemp("added")
    (folder / "code").mkdir()
    (folder / "code/by_name.py").write_text(DUMMY)
    (folder / "code/sitecustomize.py").write_text(ROW)
    env = {"PYTHONPATH": str(folder / "code")}
    project = make_project(folder / "project")
    shutil.rmtree(project.root / "nbs")
    (project.root / "nbs").mkdir()
    for name in (
        "00c_runs",
        "00e_synthetic",
        "01_cleaning",
        "02_features",
        "03c_segment_profiles",
        "04k_hybrid",
        "05_evaluation",
    ):
        shutil.copy(ROOT / "nbs" / f"{name}.ipynb", project.root / "nbs")
        leave_examples_out(project.root / f"nbs/{name}.ipynb")
    (project.root / "configs/small.yaml").write_text(
        (ROOT / "configs/small.yaml")
        .read_text()
        .replace("lines: 8000", "lines: 4000")
        .replace("k_max: 7", "k_max: 5\n  draws: 2")
        + "recommender: {cuts: 1, production: by_name}\n"
        + "mlflow: {enabled: false}\nserving: {promote_first: false}\n"
    )
    ran = project.call("run", "--config", "small", **env)
    assert ran.returncode == 0, ran.stderr
    return project, env


def test_an_added_row_is_published(added):
    project, _ = added
    run = project.home("small") / "current"
    lists = pd.read_parquet(run / "data/recommendations.parquet")
    first = lists[lists["rank"] == 1]
    assert set(first["method"]) == {"by name"} and first["product_id"].nunique() == 1
    ranking = load(run / "metrics/ranking.json")
    assert ranking["production"] == "by_name" and "by_name" in ranking["any"]
    assert "By name" in ranking["summary"]["any"]["verdict"]
    assert ranking["protocol"]["settings"]["by_name"] == {"start": 0}


def test_an_added_row_is_evaluated_back_tested_and_tuned(added):
    project, env = added
    words = ("--config", "small", "--models", "by_name")
    told = project.call("evaluate", *words, "--cuts", "2", **env)
    assert told.returncode == 0, told.stderr
    assert "By name" in told.stdout and "All cuts:" in told.stdout
    found = json.loads((project.home("small") / "evaluation/backtest.json").read_text())
    assert found["production"] == "by_name" and len(found["by_cut"]["any"]["by_name"]) == 2
    tuned = project.call("tune", *words, **env)
    assert tuned.returncode == 0, tuned.stderr
    assert "start=0" in tuned.stdout and "start=3" in tuned.stdout


def test_an_added_row_is_promoted_and_answers(added):
    project, env = added
    said = project.call("models", "promote", "--config", "small", "--force", "a trial", **env)
    assert said.returncode == 0, said.stderr
    serving = project.home("small") / "serving"
    app = _make_app(Settings(serving, log=False))
    with TestClient(app, base_url="http://localhost") as client:
        question = {"customer_id": "C00001", "n_recommendations": 3}
        answer = client.post("/recommend", json=question).json()
        card = client.get("/model").json()["card"]
        health = client.get("/health").json()
    assert answer["model_version"] == current_bundle(serving).name
    line = answer["recommendations"][0]
    assert (line["method"], line["reason"]) == ("by name", "next in the alphabet")
    assert (card["recipe"], card["label"]) == ("by_name", "By name")
    assert health["model"] == "By name"
