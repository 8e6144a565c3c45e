"""Tracking, registry and promotion against real MLflow: a file, a server, and everything that can
be in the way.
"""

import dataclasses
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import PATIENCE, ROOT, Project, make_project, no_traceback, wait_for
from small_service import free_port, tables

from retail_ci.core.config import Config, MlflowConfig, load_config
from retail_ci.core.errors import RunError
from retail_ci.core.runs import ARTEFACTS, Run
from retail_ci.customers.segmentation import CustomerSegmentation, save_model
from retail_ci.evaluate.offline import settings_of
from retail_ci.pipeline.forget import _clear_server
from retail_ci.pipeline.manifest import publish, write_manifest
from retail_ci.recommend.hybrid import configured
from retail_ci.serve.bundle import (
    Bundle,
    activate,
    current_bundle,
    recommend,
    rollback,
    seal,
    write_bundle,
)
from retail_ci.serve.promotion import only_one, promote, promote_first, read_log, take_back
from retail_ci.serve.registry import holder, list_models, write_down
from retail_ci.serve.tracking import compare_runs, find_logged, open_store

FIRST = "20260101T000000Z-aaaa"
SECOND = "20260201T000000Z-bbbb"


@pytest.fixture(autouse=True)
def only_what_is_said_here(monkeypatch):
    """Tracking is on, and nobody's own server is spoken to."""
    monkeypatch.setenv("RETAIL_CI_TRACKING", "on")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(name, raising=False)


def shop_log(seed: int) -> pd.DataFrame:
    """Sixty customers who mostly buy their own two products, every week or so."""
    rng = np.random.default_rng(seed)
    rows = [
        (f"C{i:05}", f"P{int(j):04}", day + int(rng.integers(0, 3)))
        for i in range(60)
        for day in range(i % 40, 180, 7 + i % 9)
        for j in {i % 12, (i + 5) % 12, int(rng.integers(0, 12))}
    ]
    log = pd.DataFrame(rows, columns=["customer_id", "product_id", "day"])
    return log.assign(
        date=pd.Timestamp("2025-01-01") + pd.to_timedelta(log["day"], unit="D"),
        quantity=1.0,
        price=2.0 + log["product_id"].str[1:].astype(int),
        day=lambda t: t["date"],
        month=lambda t: t["date"].dt.to_period("M").dt.start_time,
        transaction_id=[f"T{n}" for n in range(len(log))],
        revenue=lambda t: t["price"],
        weekday=lambda t: t["date"].dt.day_of_week + 1,
        hour=0,
        is_weekend=lambda t: t["weekday"] > 5,
        is_return=False,
    )


def finished_run(project: Project, name: str, seed: int = 0, **recommender) -> Run:
    """A finished run as the chain leaves it, learned from sixty customers in a second; the current
    one from now on.
    """
    config = load_config(project.root / "configs/trial.yaml")
    config.recommender = dataclasses.replace(config.recommender, **recommender)
    run = Run(config, project.home("trial") / name)
    log = shop_log(seed)
    features = (
        log.groupby("customer_id")
        .agg(last=("date", "max"), frequency=("date", "nunique"), monetary=("price", "sum"))
        .reset_index()
    )
    features.insert(1, "recency", (log["date"].max() - features.pop("last")).dt.days + 1)
    scores = {"r_score": 5, "f_score": 5, "m_score": 5, "rfm_score": "555"}
    products = pd.DataFrame({"product_id": sorted(log["product_id"].unique())}).assign(
        category=lambda t: np.where(t.index % 2, "skin", "hair"), price=2.0 + np.arange(12)
    )

    def interval(value):
        return {"value": value, "low": value - 0.05, "high": value + 0.05}

    tables = {
        "transactions": log,
        "products": products,
        "features": features.assign(**scores),
        "recommender": configured(config.recommender).fit(log, products).to_arrays(),
        "segments": features[["customer_id"]].assign(
            segment="Champions", action="thank", why="", value_at_risk=0.0, outlier=False, **scores
        ),
        "data_metrics": {
            "rows_in": len(log),
            "kept": len(log),
            "rejected": 0,
            "collapsed": 0,
            "customers": 60,
            "baskets": 900,
            "first_date": "2025-01-01",
            "last_date": "2025-06-30",
        },
        "segment_metrics": {"k": 5, "silhouette": 0.3, "stability": interval(0.9), "profiles": []},
        "ranking_metrics": {
            "production": "weighted",
            "any": {"weighted": {"ndcg": interval(0.5 + seed / 100)}},
            "discovery": {},
            "paired": {
                "any": {
                    "weighted": {
                        rival: {"ndcg": {"value": 0.1, "low": 0.05, "high": 0.15}}
                        for rival in ("personal_decayed", "random")
                    }
                }
            },
            "protocol": {
                "customers": {"any": 60, "discovery": 0},
                **settings_of({config.recommender.production: configured(config.recommender)}),
            },
        },
    }
    for artefact, value in tables.items():
        run.write(artefact, value)
    save_model(CustomerSegmentation(3).fit(features), run.target("segmentation"))
    (run.path / "figures").mkdir()
    (run.path / "figures/01_pareto.png").write_bytes(b"\x89PNG not quite")
    (run.path / "config.yaml").write_text(yaml.safe_dump(dataclasses.asdict(config)))
    write_manifest(
        run.path,
        config,
        {"transactions/sales.csv": f"{seed:064}"},
        [
            {"name": n, "sha256": "0" * 64, "seconds": 1.5, "peak_mib": 250.0}
            for n in ("01_cleaning", "05_evaluation")
        ],
        1767225600 + 86400 * seed,
        commit="abc",
        complete=True,
    )
    publish(run.path)
    return run


def new_shop(folder: Path, **mlflow) -> Project:
    project = make_project(folder / "project")
    project.config(
        yaml.safe_dump(
            {
                "name": "trial",
                "recommender": {"production": "weighted", "neighbours": 5},
                "mlflow": mlflow,
            }
        ),
        "trial",
    )
    return project


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Project:
    """A shop whose first run has been promoted and written down."""
    project = new_shop(tmp_path_factory.mktemp("shop"))
    run = finished_run(project, FIRST)
    assert "answers now" in promote_first(run, project.home("trial") / "serving")
    before = {
        name: os.environ.pop(name, None) for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            sys, "dont_write_bytecode", False
        )  # as in a user's shell, whatever is set here
        assert write_down(run.config, project.home("trial")) == []
        assert not sys.dont_write_bytecode, "the flag is as it was"
    os.environ.update({k: v for k, v in before.items() if v})
    return project


def copy_of(shop: Project, folder: Path) -> Project:
    """The same shop at another place, as if the project had been moved."""
    shutil.copytree(shop.root, folder / "moved", symlinks=True)
    return Project(folder / "moved")


def opened(project: Project):
    return open_store(load_config(project.root / "configs/trial.yaml"), project.home("trial"))


# What is written down


def test_a_run_is_written_down_with_its_stages(shop):
    store = opened(shop)
    run = store.client.get_run(find_logged(store, FIRST))
    assert (
        run.data.metrics["any/ndcg"] == 0.5
        and run.data.metrics["any/ndcg.low"] == 0.45
        and run.data.metrics["any/ndcg.high"] == 0.55
    )
    assert (
        run.data.params["recommender.production"] == "weighted" and run.data.params["seed"] == "42"
    )
    assert (
        run.data.tags["retail_ci.run"] == FIRST
        and len(run.data.tags["source_hash"]) == len(run.data.tags["recipe_hash"]) == 64
    )
    (data,) = run.inputs.dataset_inputs
    assert (
        data.dataset.name == "trial"
        and json.loads(data.dataset.profile)["customers"] == 60
        and data.dataset.digest == run.data.tags["source_hash"][:36]
    )
    stages = {
        r.info.run_name: r
        for r in store.client.search_runs(
            [store.experiment], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
        )
    }
    assert (
        set(stages) == {"01_cleaning", "05_evaluation", "models"}
        and stages["01_cleaning"].data.metrics["seconds"] == 1.5
    )
    assert (
        stages["05_evaluation"].data.metrics["any/weighted/ndcg.low"] == 0.45
        and stages["05_evaluation"].info.status == "FINISHED"
    )
    files = {
        f.path
        for top in ("", "figures", "metrics")
        for f in store.client.list_artifacts(run.info.run_id, top)
    }
    assert {
        "manifest.json",
        "config.yaml",
        "figures/01_pareto.png",
        "metrics/ranking.json",
    } <= files


def test_nothing_with_a_line_per_customer_is_copied(shop):
    copied = {p.name for p in (shop.home("trial") / "mlflow").rglob("*") if p.is_file()}
    assert not copied & {
        Path(ARTEFACTS[n].path).name
        for n in ("transactions", "features", "segments", "recommendations", "customers")
    }


def test_it_is_written_once(shop):
    store = opened(shop)
    before = (
        len(store.client.search_runs([store.experiment])),
        len(store.client.search_model_versions("name = 'retail-recommender'")),
    )
    write_down(load_config(shop.root / "configs/trial.yaml"), shop.home("trial"))
    assert (
        len(store.client.search_runs([store.experiment])),
        len(store.client.search_model_versions("name = 'retail-recommender'")),
    ) == before


def test_half_a_line_is_written_anew_and_the_search_path_stays(shop, tmp_path):
    project = copy_of(shop, tmp_path)
    run = finished_run(project, SECOND, seed=1)
    store = opened(project)
    half = store.client.create_run(store.experiment, tags={"retail_ci.run": SECOND}).info.run_id
    before = list(sys.path)
    write_down(run.config, project.home("trial"))
    assert sys.path == before
    assert store.client.get_run(half).info.status == "KILLED" and find_logged(
        store, SECOND
    ) not in (half, None)
    assert len(store.client.search_model_versions("name = 'retail-recommender'")) == 2


# The registry

ALONE = """
import sys
assert not any(name.startswith("retail_ci") for name in sys.modules)
import mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
lists = mlflow.pyfunc.load_model("models:/retail-recommender@champion")
table = lists.predict(pd.DataFrame({"customer_id": ["C00001", "nobody"]}), params={"k": 3})
names = mlflow.pyfunc.load_model("models:/retail-segmentation@champion")
segments = names.predict(pd.read_parquet(sys.argv[2]))
table.to_parquet(sys.argv[3] + "/lists.parquet")
segments.to_parquet(sys.argv[3] + "/segments.parquet")
try: lists.predict(pd.DataFrame({"customer": ["C00001"]}))
except mlflow.exceptions.MlflowException as e: print("refused:", e)
print("code:", sys.modules["retail_ci"].__file__)
"""


def predicted(store: str, model: str) -> pd.DataFrame:
    """The list of one customer, by a model that MLflow has loaded.

    MLflow puts the model's own code first on the search path of its process, and leaves it there.
    """
    import mlflow

    before = list(sys.path)
    mlflow.set_tracking_uri(store)
    try:
        return mlflow.pyfunc.load_model(model).predict(pd.DataFrame({"customer_id": ["C00002"]}))
    finally:
        mlflow.set_tracking_uri(None)
        sys.path[:] = before


def test_both_models_load_in_an_empty_process(shop, tmp_path):
    home = shop.home("trial")
    out = subprocess.run(
        [
            sys.executable,
            "-B",
            "-c",
            ALONE,
            f"sqlite:///{home / 'mlflow.db'}",
            str(home / "current/data/features.parquet"),
            str(tmp_path),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert out.returncode == 0, out.stderr
    assert str(home / "mlflow") in out.stdout.split("code:")[1], (
        "the code that lies beside the model is used"
    )
    assert "refused:" in out.stdout and "customer_id" in out.stdout
    run = Run(load_config(shop.root / "configs/trial.yaml"), home / "current")
    from retail_ci.customers.segmentation import load_model

    bundle = Bundle(current_bundle(home / "serving"))
    want = {who: recommend(bundle, who, 3)["recommendations"] for who in ("C00001", "nobody")}
    got = pd.read_parquet(tmp_path / "lists.parquet")
    columns = ["product_id", "score", "method", "reason"]
    assert {who: t[columns].to_dict("records") for who, t in got.groupby("customer_id")} == want
    assert got["rank"].tolist() == [1, 2, 3] * 2
    assert (
        pd.read_parquet(tmp_path / "segments.parquet")["segment"].tolist()
        == load_model(run.file("segmentation")).predict(run.read("features")).tolist()
    )


def test_no_pickle_anywhere(shop):
    files = [p for p in (shop.home("trial") / "mlflow").rglob("*") if p.is_file()]
    assert files and {p.suffix for p in files} <= {
        ".py",
        ".npz",
        ".json",
        ".yaml",
        ".txt",
        ".png",
        ".csv",
        "",
        ".typed",  # the empty mark of a package with types
    }, sorted({p.suffix for p in files})
    assert not [p for p in files if p.read_bytes()[:1] == b"\x80"], (
        "a pickle begins with this byte, whatever it is called"
    )


def test_champion_follows_promotion_and_rollback_and_heals(shop, tmp_path):
    project = copy_of(shop, tmp_path)
    home = project.home("trial")
    serving = project.home("trial") / "serving"
    first = current_bundle(serving).name
    second = finished_run(project, SECOND, seed=1, neighbours=9)
    write_down(second.config, home)
    store = opened(project)

    def champion():
        return (
            holder(store, "recommender", "champion").tags["run"],
            holder(store, "segmentation", "champion").tags["run"],
        )

    assert holder(store, "recommender", "challenger").tags["run"] == SECOND and champion() == (
        FIRST,
        FIRST,
    )
    yes, version, checks = promote(second, serving, force="to see it move")
    assert yes and [c.name for c in checks if "recipe" in c.name] == [
        f"{t}: not worse than the recipe of {first}" for t in ("any", "discovery")
    ]
    assert champion() == (FIRST, FIRST), "as if the machine had died here"
    write_down(second.config, home)
    assert (
        champion() == (SECOND, SECOND)
        and "forced: to see it move" in holder(store, "recommender", "champion").tags["verdict"]
    )
    take_back(serving)
    write_down(second.config, home)
    assert champion() == (FIRST, FIRST) and current_bundle(serving).name == first
    table = list_models(store, serving, "trial")
    assert table["run"].tolist()[0] == SECOND and table.loc[
        table["serves"] == "now", "bundle"
    ].unique().tolist() == [first]
    lines = read_log(serving)
    assert (
        lines[1]["recipe_hash"] != lines[0]["recipe_hash"]
        and lines[1]["source_hash"] != lines[0]["source_hash"]
    )


# What can be in the way


def test_a_locked_database_is_one_sentence_and_nothing_is_lost(shop, tmp_path):
    project = copy_of(shop, tmp_path)
    run = finished_run(project, SECOND, seed=1)
    with sqlite3.connect(project.home("trial") / "mlflow.db", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(
            RunError,
            match="mlflow.db is locked by another program; close it or wait, and try again",
        ):
            write_down(run.config, project.home("trial"))
        done = project.here("models", "rollback", "--config", "trial")
        assert done.returncode == 4 and "no earlier bundle" in done.stderr
        other.rollback()
    write_down(run.config, project.home("trial"))
    assert find_logged(opened(project), SECOND)


def test_a_read_only_database_is_one_sentence(shop, tmp_path):
    project = copy_of(shop, tmp_path)
    config = load_config(project.root / "configs/trial.yaml")
    config.mlflow = MlflowConfig(
        tracking_uri=f"sqlite:///file:{project.home('trial') / 'mlflow.db'}?mode=ro&uri=true"
    )
    with pytest.raises(RunError, match="is read-only; correct its permissions"):
        write_down(config, project.home("trial"))


def test_a_registry_that_is_gone_is_made_anew(shop, tmp_path):
    project = copy_of(shop, tmp_path)
    home = project.home("trial")
    (home / "mlflow.db").unlink()
    shutil.rmtree(home / "mlflow")
    done = project.here("models", "compare", "--config", "trial")
    assert done.returncode == 4 and "No run has been recorded yet" in done.stderr
    assert write_down(load_config(project.root / "configs/trial.yaml"), home) == []
    assert holder(opened(project), "recommender", "champion").tags["run"] == FIRST


def place_of(store, version) -> Path:
    return Path(store.client.get_logged_model(version.source.rpartition("/")[2]).artifact_location)


def test_a_moved_project_says_so_and_goes_on(shop, tmp_path):
    project = copy_of(shop, tmp_path)
    home = project.home("trial")
    config = load_config(project.root / "configs/trial.yaml")
    (note,) = write_down(config, home)
    assert place_of(opened(shop), holder(opened(shop), "recommender", "champion")).is_relative_to(
        shop.home("trial")
    ), "the files are beside the database"
    assert (
        "The project has been moved" in note
        and str(shop.home("trial") / "mlflow") in note
        and "the service is not affected" in note
    )
    assert write_down(config, home) == [], "it is said once"
    store = opened(project)
    assert store.client.get_experiment(store.experiment).artifact_location == str(
        home / "mlflow"
    ) and current_bundle(home / "serving")
    with pytest.MonkeyPatch.context() as patch:  # the old place is gone
        patch.setattr(
            "retail_ci.serve.registry.still_there",
            lambda store, version: place_of(store, version).is_relative_to(home),
        )
        write_down(config, home)
    assert (
        holder(store, "recommender", "champion").tags["bundle"]
        == current_bundle(home / "serving").name
    )
    assert place_of(store, holder(store, "recommender", "champion")).is_relative_to(home), (
        "the champion that can be loaded is the one that lies here"
    )


def test_two_promotions_at_once(shop):
    with only_one(shop.home("trial") / "serving"):
        done = shop.here("models", "promote", "--config", "trial")
    assert (
        done.returncode == 4
        and "Another promotion is in progress" in done.stderr
        and len(read_log(shop.home("trial") / "serving")) == 1
    )


def test_a_run_outlives_a_tracker_that_does_not_answer(tmp_path):
    project = make_project(tmp_path / "project")
    port = free_port()
    project.config(f"mlflow: {{tracking_uri: 'http://127.0.0.1:{port}', timeout: 60}}\n")
    done = project.call("run", RETAIL_CI_TRACKING="on", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
    assert done.returncode == 0 and project.current(), done.stderr
    assert (
        "The run is finished and current, but it is not recorded in MLflow: MLflow at "
        f"http://127.0.0.1:{port} cannot be used: it does not answer"
        in done.stderr
        and "The next run catches up." in done.stderr
    )


def test_off_is_off_and_a_missing_extra_is_one_line(tmp_path, monkeypatch):
    from retail_ci.pipeline import afterwards

    clerk = afterwards.PostRunWorker(Config(mlflow=MlflowConfig(enabled=False)), tmp_path, [])
    clerk.start(None)
    assert clerk.process is None and clerk.words == []
    monkeypatch.setattr(afterwards.importlib.util, "find_spec", lambda name: None)
    clerk = afterwards.PostRunWorker(Config(), tmp_path, [])
    clerk.start(None)
    assert clerk.process is None and clerk.words == [
        "Tracking is off, because MLflow is not installed; `pip install 'retail_ci[mlops]'` turns "
        "it on."
    ]


def test_nothing_imports_mlflow_before_it_is_needed():
    words = (
        "import pkgutil, sys, importlib, retail_ci\n"
        "for m in pkgutil.walk_packages(retail_ci.__path__, 'retail_ci.'): "
        "importlib.import_module(m.name)\nassert 'mlflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", words], check=True)


# A real PostgreSQL


def test_postgresql_keeps_runs_and_models(postgres, tmp_path):
    import psycopg

    with psycopg.connect(postgres.url(), autocommit=True) as con:
        con.execute("CREATE DATABASE mlflow")
    project = new_shop(tmp_path, tracking_uri=postgres.url().replace("/postgres", "/mlflow"))
    run = finished_run(project, FIRST)
    home = project.home("trial")
    assert (
        "answers now" in promote_first(run, home / "serving") and write_down(run.config, home) == []
    )
    store = opened(project)
    assert store.uri.startswith("postgresql+psycopg://") and not (home / "mlflow.db").exists()
    assert store.client.get_run(find_logged(store, FIRST)).data.metrics["any/ndcg.low"] == 0.45
    assert holder(store, "recommender", "champion").tags["config"] == "trial"
    table = predicted(store.uri, "models:/retail-recommender@champion")
    assert len(table) == 10 and table["rank"].tolist() == list(range(1, 11))


@pytest.mark.parametrize(
    "uri, said",
    [
        ("postgresql://tester@127.0.0.1:{port}/nowhere", 'database "nowhere" does not exist'),
        (
            "postgresql://me@127.0.0.1:1/mlflow",
            "it does not answer; start it, or correct mlflow.tracking_uri",
        ),
        (
            "postgresql+psycopg2://me@127.0.0.1:{port}/mlflow",
            "the package psycopg2 is missing; install it",
        ),
        ("postgresql+nonsense://me@127.0.0.1:{port}/mlflow", "postgresql.nonsense"),
    ],
)
def test_a_wrong_address_of_a_database_is_one_sentence_at_once(
    postgres, tmp_path, monkeypatch, uri, said
):
    config = Config(name="trial", mlflow=MlflowConfig(tracking_uri=uri.format(port=postgres.port)))
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    with pytest.raises(RunError, match="cannot be used: ") as error:
        open_store(config, tmp_path)
    assert (
        said in str(error.value)
        and "\n" not in str(error.value)
        and "Background" not in str(error.value)
        and "me@" not in str(error.value)
    )
    assert sum(slept) < 10, "MLflow alone would sleep for minutes between its attempts"


# A real server


@pytest.fixture(scope="module")
def server_folder(tmp_path_factory) -> Path:
    """Where the tracking server keeps everything."""
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server(server_folder):
    """A tracking server on loopback, with a database of its own; ended with all that it has
    started.
    """
    folder = server_folder
    port = free_port()
    words = [
        Path(sys.executable).parent / "mlflow",
        "server",
        "--backend-store-uri",
        f"sqlite:///{folder}/m.db",
        "--artifacts-destination",
        folder / "files",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            words,
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=os.environ
            | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )  # no seven processes for jobs that nobody gives it

    def healthy() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        try:
            return (
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=PATIENCE).status
                == 200
            )
        except OSError:
            return False

    try:
        wait_for(healthy)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def test_a_server_takes_it_all_and_can_be_searched(server, tmp_path):
    project = new_shop(tmp_path, tracking_uri=server)
    home = project.home("trial")
    for name, seed in ((FIRST, 0), (SECOND, 3)):
        run = finished_run(project, name, seed, neighbours=5 + seed)
        promote_first(run, home / "serving")
        assert write_down(run.config, home) == []
    assert not (home / "mlflow.db").exists() and not (home / "mlflow").exists()
    found = compare_runs(run.config, metric="any/ndcg", store=opened(project))
    lines = found.numbers[found.numbers["metric"] == "any/ndcg"].set_index("run")
    assert (
        lines["value"].round(6).to_dict() == {SECOND: 0.53, FIRST: 0.5}
        and (lines["low"] < lines["value"]).all()
    )
    assert found.settings.loc["recommender.neighbours"].to_dict() == {SECOND: "8", FIRST: "5"}
    shown = {
        words: project.here("models", *words, "--config", "trial")
        for words in (
            ("compare", "--metric", "ndcg"),
            ("compare", "--runs", "2026", "--out", str(tmp_path / "n.csv")),
            ("list",),
            ("show",),
            ("show", "challenger"),
            ("show", "nonsense"),
            ("compare", "--runs", "1999"),
            ("compare", "--out", "x.txt"),
        )
    }
    assert [d.returncode for d in shown.values()] == [0, 0, 0, 0, 0, 2, 2, 2], [
        d.stderr for d in shown.values()
    ]
    assert (
        "0.530 (0.480 to 0.580)" in shown["compare", "--metric", "ndcg"].stdout
        and len(pd.read_csv(tmp_path / "n.csv")) > 10
    )
    assert "(answers now)" in shown["list",].stdout and SECOND in shown["list",].stdout
    assert (
        FIRST in shown["show",].stdout
        and SECOND in shown["show", "challenger"].stdout
        and "yes  the line counts add up" in shown["show",].stdout
    )
    assert all(no_traceback(d.stderr) for d in shown.values())
    assert (
        "did you mean" in shown["show", "nonsense"].stderr
        or "no registered model" in shown["show", "nonsense"].stderr
    )


def test_two_shops_on_one_server_keep_apart(server, tmp_path):
    project = new_shop(tmp_path, tracking_uri=server, prefix="shared")
    run = finished_run(project, FIRST)
    promote_first(run, project.home("trial") / "serving")
    assert write_down(run.config, project.home("trial")) == []
    other = dataclasses.replace(run.config, name="other")
    shutil.copytree(project.home("trial"), project.home("other"), symlinks=True)
    (project.home("other") / "current/config.yaml").write_text(
        yaml.safe_dump(dataclasses.asdict(other))
    )
    notes = write_down(other, project.home("other"))
    assert any(
        "belongs to the config 'trial' and was not moved; set mlflow.prefix" in n for n in notes
    )
    assert holder(opened(project), "recommender", "champion").tags["config"] == "trial"


def names_in(folder: Path, ids: list[str]) -> set[str]:
    """The customers who are named anywhere below a folder: in bytes, arrays or names of files."""
    wanted = re.compile("|".join(map(re.escape, ids)))
    found = set()
    for file in (p for p in folder.rglob("*") if p.is_file()):
        words = file.read_bytes().decode("latin-1") + file.name
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as arrays:
                words += " ".join(str(v) for a in arrays.values() for v in np.ravel(a))
        found |= set(wanted.findall(words + words.replace("\0", "")))
    return found


def ids_of(run: Run) -> list[str]:
    """The customers of a run; not those of the examples in the package's own code."""
    code = "".join(p.read_text() for p in (ROOT / "retail_ci").rglob("*.py"))
    return [who for who in run.read("features")["customer_id"] if who not in code]


def test_a_server_holds_no_customer_unless_asked_to(server, server_folder, tmp_path):
    project = new_shop(tmp_path / "quiet", tracking_uri=server, prefix="quiet")
    names = [f"2026030{n}T000000Z-cccc" for n in (1, 2, 3)]  # no other test's
    run = finished_run(project, names[0], seed=4)
    ids = ids_of(run)
    promote_first(run, project.home("trial") / "serving")
    assert write_down(run.config, project.home("trial")) == []
    assert len(ids) > 40 and names_in(server_folder, ids) == set()
    asked = new_shop(tmp_path / "asked", tracking_uri=server, prefix="asked", customers=True)
    run = finished_run(asked, names[1], seed=4)
    promote_first(run, asked.home("trial") / "serving")
    assert write_down(run.config, asked.home("trial")) == []
    assert names_in(server_folder, ids) == set(ids), "the search sees a customer where there is one"
    shutil.rmtree(run.path)  # as after another run, with runs.keep: 1
    text = (asked.root / "configs/trial.yaml").read_text()
    asked.config(text.replace("customers: true", "customers: false"), "trial")
    run = finished_run(asked, names[2], seed=5)
    assert not run.config.mlflow.customers
    write_down(run.config, asked.home("trial"))
    assert names_in(server_folder, ids) == set(ids), "the bundle that answers is of that model"
    shutil.rmtree(current_bundle(asked.home("trial") / "serving"))  # as `retail-ci forget` does
    assert _clear_server(run.config, asked.home("trial"))[0] == [
        "the files of earlier runs in MLflow (1)"
    ]
    assert names_in(server_folder, ids) == set(), "old files are pruned with their runs"
    kept = opened(asked)
    assert kept.client.get_run(find_logged(kept, names[1])).data.metrics["any/ndcg"] == 0.54
    versions = kept.client.search_model_versions("name = 'asked-recommender'")
    assert [v.tags["run"] for v in versions] == [names[2]]
    assert write_down(run.config, asked.home("trial")) == []


def test_a_bundle_that_is_not_the_registered_one_is_refused(server, tmp_path):
    project = new_shop(tmp_path, tracking_uri=server, prefix="pointing")
    run = finished_run(project, FIRST)
    serving = project.home("trial") / "serving"
    promote_first(run, serving)
    write_down(run.config, project.home("trial"))
    model = "models:/pointing-recommender@champion"
    table = predicted(server, model)
    columns = {"customer_id", "product_id", "score", "rank", "method", "reason"}
    assert len(table) == 10 and set(table.columns) == columns
    folder = current_bundle(serving)
    whole = (folder / "any_items.bin").read_bytes()
    (folder / "any_items.bin").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(RunError, match="any_items.bin of the bundle m.* does not match"):
        predicted(server, model)
    (folder / "any_items.bin").write_bytes(whole)
    papers = json.loads((folder / "manifest.json").read_text())
    card = json.loads((folder / "card.json").read_text()) | {"recommender_sha256": "f" * 64}
    (folder / "card.json").write_text(json.dumps(card))
    (folder / "manifest.json").unlink()
    seal(folder, {key: papers[key] for key in ("version", "depth", "counts")})
    with pytest.raises(RunError, match="is not the registered one: expected m.*, found m.* with f"):
        predicted(server, model)
    assert "is no longer in the registry" in " ".join(
        write_down(run.config, project.home("trial"))
    ), "an alias points only to what is served"
    shutil.move(folder, tmp_path / "elsewhere")
    with pytest.raises(RunError, match="which is not in .*serving. Name the folder"):
        predicted(server, "models:/pointing-recommender/1")


def add_bundle(serving: Path, version: str, sensitive: list[str]) -> None:
    """A bundle that answers from now on, with a product more that no list holds."""
    made = tables(version)
    product = pd.DataFrame({"product_id": ["P0099"], "category": "care"})
    made["products"] = pd.concat([made["products"], product], ignore_index=True)
    write_bundle(serving / version, **made, version=version, depth=20, sensitive=sensitive)
    activate(serving, version)


@pytest.mark.parametrize("asked, expected", [(None, "v1"), (True, "v1"), (False, "v2")])
def test_a_rollback_keeps_the_mask_of_the_model_that_answers(tmp_path, asked, expected):
    for version, sensitive in (("v1", ["P0099"]), ("v2", []), ("v3", ["P0099"])):
        add_bundle(tmp_path, version, sensitive)
    assert take_back(tmp_path, "a test", asked) == current_bundle(tmp_path).name == expected


@pytest.mark.parametrize("way", [rollback, take_back])
def test_a_rollback_from_a_damaged_bundle_keeps_the_mask(tmp_path, way):
    for version, sensitive in (("v1", []), ("v2", ["P0099"]), ("v3", []), ("v4", [])):
        add_bundle(tmp_path, version, sensitive)
    (tmp_path / "v4/manifest.json").write_text("[]")
    assert way(tmp_path) == current_bundle(tmp_path).name == "v2"
