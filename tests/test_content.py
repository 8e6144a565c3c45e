"""A file of a run that is whole and holds something else: another version wrote it, or a hand, with
fresh checksums. Each reader either says the same as before or one sentence that names the file.

CONTENT is how many changes of each file are tried (`make soak` tries more).
"""

import contextlib
import copy
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import copy_of_small

from retail_ci.cli import answer, site
from retail_ci.core.errors import RetailError, RunError
from retail_ci.core.runs import ARTEFACTS, Run, open_run, seal_of, sha256
from retail_ci.export.campaigns import write_campaigns
from retail_ci.export.powerbi import export_powerbi
from retail_ci.pipeline.chain import chain
from retail_ci.pipeline.manifest import copy_earlier
from retail_ci.serve.drift import drift_run
from retail_ci.serve.promotion import origin_of, promote, read_log
from retail_ci.serve.registry import _note_verdicts
from retail_ci.serve.tracking import _stage_facts, _stage_numbers, headline

CHANGES = int(os.environ.get("CONTENT", "25"))
NOT_OURS = "is not what this version writes"


@pytest.fixture(scope="module")
def project(small, tmp_path_factory):
    """A copy of the small project, whose files may be written anew."""
    return copy_of_small(small, tmp_path_factory.mktemp("content") / "project")


@pytest.fixture(scope="module")
def run(project) -> Run:
    """Its finished run."""
    folder = (project.home("small") / "current").resolve()
    for file in folder.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
    return open_run(run_dir=folder)


@contextlib.contextmanager
def resealed(run: Run, file: str) -> Iterator[Path]:
    """A file to write anew; it fits its checksum, and afterwards it is as before."""
    place = run.path / file
    papers = run.path / "manifest.json"
    before = {path: path.read_bytes() for path in (place, papers)}
    try:
        yield place
    finally:
        for path, data in before.items():
            path.write_bytes(data)


def seal(run: Run, file: str) -> None:
    """Give the manifest the checksum of a file, and its own."""
    papers = json.loads((run.path / "manifest.json").read_text())
    for line in [*papers["artifacts"], *papers["papers"]]:
        if line["path"] == file:
            line["sha256"] = sha256(run.path / file)
    (run.path / "manifest.json").write_text(json.dumps(papers | {"seal": seal_of(papers)}))


def other(value: Any) -> Any:
    """Something of another kind."""
    if isinstance(value, str):
        return 7
    return {dict: ["x"], list: {"x": 1}}.get(type(value), "x")


def changed(value: Any, path: tuple = ()) -> Iterator[tuple[tuple, str]]:
    """Each key of an object, and of those in it: dropped, or with something of another kind."""
    for key in value if isinstance(value, dict) else range(min(len(value), 1)):
        yield (*path, key), "other"
        if isinstance(value, dict):
            yield (*path, key), "drop"
        if isinstance(value[key], (dict, list)):
            yield from changed(value[key], (*path, key))


def with_change(value: Any, path: tuple, how: str) -> Any:
    """A copy with one change."""
    made = copy.deepcopy(value)
    node = made
    for key in path[:-1]:
        node = node[key]
    if how == "drop":
        del node[path[-1]]
    else:
        node[path[-1]] = other(node[path[-1]])
    return made


def outcome(read: Callable[[Run], Any], run: Run, file: str) -> Any:
    """What a reader says; None if that is the sentence."""
    try:
        return read(run)
    except RetailError as error:
        said = str(error)
        assert Path(file).name in said and NOT_OURS in said, said
        assert "Run the chain again with `retail-ci run`" in said
        return None


def decision(run: Run, serving: Path) -> tuple:
    """What the gate finds, without a bundle: the last check is one that no run passes."""
    strict = copy.deepcopy(run.config)
    strict.data.max_rejected = 0.0
    yes, _, checks = promote(Run(strict, run.path), serving)
    assert not yes
    return tuple((check.name, check.passed, check.found) for check in checks)


@pytest.mark.parametrize("name", ["data_metrics", "segment_metrics", "ranking_metrics"])
def test_facts_with_other_content_decide_nothing(run, tmp_path, name):
    """promote decides as before, or says which file is not ours; MLflow is told no text."""
    file = ARTEFACTS[name].path
    whole = json.loads((run.path / file).read_text())
    before = decision(run, tmp_path)
    # the settings of the models are no keys of ours; the gate compares them
    changes = [c for c in changed(whole) if c[0][:2] != ("protocol", "settings")]
    for path, how in Random(name).sample(changes, min(CHANGES, len(changes))):
        with resealed(run, file) as place:
            place.write_text(json.dumps(with_change(whole, path, how)))
            seal(run, file)
            found = outcome(lambda run: decision(run, tmp_path), run, file)
            assert found in (None, before), (path, how)
            numbers = outcome(headline, run, file) or {}
            assert all(isinstance(number, float) for number in numbers.values())
            outcome(lambda run: _stage_numbers(run, ARTEFACTS[name].maker), run, file)
    assert decision(run, tmp_path) == before


NEEDED = {
    "data_metrics": [("rows_in",), ("kept",), ("rejected",), ("collapsed",)],
    "segment_metrics": [("stability",), ("stability", "value")],
    "ranking_metrics": [
        *[("production",), ("protocol",), ("protocol", "customers"), ("protocol", "settings")],
        *[("any",), ("paired",), ("paired", "any"), ("paired", "discovery", "ranker", "random")],
        *[("paired", "any", "ranker", "personal_decayed", "ndcg", "low")],
    ],
}


@pytest.mark.parametrize("name,path", [(n, path) for n in NEEDED for path in NEEDED[n]])
def test_a_gap_in_the_results_is_no_question_that_nobody_could_ask(run, tmp_path, name, path):
    file = ARTEFACTS[name].path
    whole = json.loads((run.path / file).read_text())
    with resealed(run, file) as place:
        for how in ("drop", "other"):
            place.write_text(json.dumps(with_change(whole, path, how)))
            seal(run, file)
            with pytest.raises(RunError, match=f"{place.name} {NOT_OURS}") as caught:
                decision(run, tmp_path)
            assert any(key in str(caught.value) for key in path)


def test_a_manifest_with_other_content_starts_nothing(project, run, tmp_path):
    """A later start, and what names a model's origin."""
    file = "manifest.json"
    whole = json.loads((run.path / file).read_text())
    books = [p for p in chain(project.root / "nbs") if p.stem < "03"]

    def start(run: Run) -> Any:
        home = project.home("small")
        lines = copy_earlier(books, home, tmp_path, run.config, whole["inputs"])
        return [{**line, "cpu_seconds": 0} for line in lines]  # for a table, where it is known

    before = [origin_of(run), start(run)]
    plain = {key: value for key, value in whole.items() if key not in ("artifacts", "papers")}
    # names of sources are no keys of ours
    changes = [c for c in changed(plain) if c[0][0] != "seal" and c[0][:-1] != ("inputs",)]
    for path, how in Random(file).sample(changes, min(2 * CHANGES, len(changes))):
        made = with_change(whole, path, how)
        with resealed(run, file) as place:
            place.write_text(json.dumps(made | {"seal": seal_of(made)}))
            assert outcome(origin_of, run, file) in (None, before[0]), (path, how)
            try:
                assert start(run) == before[1], (path, how)
            except RunError as error:
                told = str(error)
                assert NOT_OURS in told or "Cannot start in the middle: since the last" in told
    assert [origin_of(run), start(run)] == before


def test_an_executed_notebook_with_other_content_is_named(run):
    file = "executed/04k_hybrid.ipynb"
    whole = json.loads((run.path / file).read_text())
    before = origin_of(run)
    paths = [("cells",), ("metadata",), *[("cells", 0, k) for k in ("cell_type", "source")]]
    for path in [*paths, ("cells", 0, "metadata")]:
        for how in ("drop", "other"):
            with resealed(run, file) as place:
                place.write_text(json.dumps(with_change(whole, path, how)))
                seal(run, file)
                assert outcome(origin_of, run, file) is None, (path, how)
                assert outcome(lambda run: _stage_facts(run.path / file), run, file) is None
    assert origin_of(run) == before


def test_a_verdict_with_other_content_is_passed_over_or_noted(tmp_path):
    """The log of promotions carries no checksum."""
    line = {"when": "2026-01-01T00:00:00.000001Z", "run": "r1", "version": "m1", "promoted": True}
    line |= {"forced": "", "checks": [{"name": "any", "passed": True, "found": "well"}]}

    def tags(line: dict) -> dict[str, str]:
        (tmp_path / "log.jsonl").write_text(json.dumps(line) + "\n")
        version = SimpleNamespace(name="shop", version=1, tags={"run": "r1"})
        client = SimpleNamespace(set_model_version_tag=quiet)
        _note_verdicts(SimpleNamespace(client=client), [version], read_log(tmp_path))
        return version.tags

    assert tags(line)["verdict"].startswith("passed (2026-01-01T00:00:00.000001Z)\nyes  any: well")
    for path, how in changed(line):
        found = tags(with_change(line, path, how))
        told = found.get("verdict", "").partition(" (")[0]
        assert told in ("", "passed", "refused", "forced: 7"), path
        assert told == "" or how == "other" or path[0] not in ("run", "version", "checks"), path


def quiet(*_: Any) -> None:
    """Tell nobody."""


def exported(run: Run, folder: Path) -> dict[str, str]:
    """What Power BI gets."""
    export_powerbi(run, folder / "powerbi", False, quiet)
    return {p.name: sha256(p) for p in (folder / "powerbi").rglob("*.csv")}


def campaigned(run: Run, folder: Path) -> dict[str, str]:
    """The lists of a campaign."""
    write_campaigns(run, folder / "campaigns", False, quiet)
    return {p.name: sha256(p) for p in (folder / "campaigns").rglob("*.csv")}


TABLES = {  # table: who reads it, and columns that this reader needs
    "segments": (campaigned, ["customer_id", "segment", "why", "value_at_risk", "action"]),
    "worth": (campaigned, ["customer_id", "value_90"]),
    "recommendations": (campaigned, ["customer_id", "product_id", "rank", "reason"]),
    "features": (exported, ["customer_id", "recency", "rfm_score"]),
    "transactions": (exported, ["customer_id", "date", "price", "revenue", "is_return"]),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_without_a_column_or_with_another_kind_is_named(run, tmp_path, name):
    """A column that was missing became an empty one in Power BI."""
    file = ARTEFACTS[name].path
    whole = pq.read_table(run.path / file)
    reader, columns = TABLES[name]
    for column in columns:
        place = whole.column_names.index(column)
        text = pa.types.is_string(whole[column].type) or pa.types.is_large_string(
            whole[column].type
        )
        strange = pa.array([7 if text else "x"] * len(whole))
        for made in (whole.drop([column]), whole.set_column(place, column, strange)):
            with resealed(run, file) as path:
                pq.write_table(made, path)
                seal(run, file)
                assert outcome(lambda run: reader(run, tmp_path), run, file) is None, column
                with pytest.raises(RunError, match=NOT_OURS):
                    run.read(name)


def test_drift_names_a_log_that_is_not_ours(project, run, monkeypatch):
    monkeypatch.chdir(project.root)
    file = ARTEFACTS["transactions"].path
    whole = pd.read_parquet(run.path / file)
    for column in ("price", "weekday", "hour", "is_weekend"):
        for made in (whole.drop(columns=column), whole.assign(**{column: "x"})):
            with resealed(run, file) as path:
                made.to_parquet(path, index=False)
                seal(run, file)
                with pytest.raises(RunError, match=f"transactions.parquet {NOT_OURS}"):
                    drift_run(run.config, Path("."), since="2025-12-01")


def test_a_page_that_cannot_be_made_is_one_sentence(project, run, monkeypatch, capsys):
    monkeypatch.chdir(project.root)
    file = ARTEFACTS["insights"].path
    whole = json.loads((run.path / file).read_text())
    for path, how, words in (
        (("figures", 0, "value"), "other", "cannot be shown (TypeError"),
        (("figures", 0, "name"), "drop", "insights.json is not what this version writes"),
    ):
        with resealed(run, file) as place:
            place.write_text(json.dumps(with_change(whole, path, how)))
            seal(run, file)
            assert answer(site, config="small") == 4
            said = capsys.readouterr().err.strip().splitlines()
            assert words in said[-1] and "Run the chain again with `retail-ci run`" in said[-1]
