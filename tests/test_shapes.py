"""Every JSON file of ours in a wrong shape, as another program, an older version or a bad disk
could leave it: one sentence or no matter, and the model that answers goes on answering.
"""

import json
import shutil

import pytest
from fastapi.testclient import TestClient
from small_service import tables

from retail_ci.core.config import Config
from retail_ci.core.errors import RetailError, RunError
from retail_ci.core.runs import Run, open_run, read_manifest
from retail_ci.core.suppression import FORGOTTEN, read_forgotten
from retail_ci.serve import api
from retail_ci.serve.bundle import (
    Bundle,
    activate,
    card_in,
    current_bundle,
    point_at,
    recommend,
    seal,
    write_bundle,
)
from retail_ci.serve.promotion import read_log, settle_pending, take_back
from retail_ci.serve.tracking import _stage_numbers

ODD = {
    "artifacts": 5,
    "papers": [5],
    "files": {"../a": 3, "b": {"bytes": "1"}},
    "format": 1,
    "version": "v1",
    "depth": 20,
    "when": 5,
    "checks": [5],
    "hashes": [[1]],
    "from": 5,
    "last_date": "soon",
}
SHAPES = {
    "a list": b"[]",
    "a list of numbers": b"[5]",
    "a number": b"5",
    "a text": b'"version"',
    "nothing": b"null",
    "no bytes": b"",
    "half an object": b'{"a":',
    "no UTF-8": b'{"\xff": 1}',
    "deep": b"[" * 100_000,
    "odd values": json.dumps(ODD).encode(),
}
FILES = ["stack.json", "log.jsonl", "pending.json", FORGOTTEN, ".v2.checked", "v2/manifest.json"]
FILES += ["v2/card.json", "v2/profiles.json"]
shaped = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of two bundles, of which the first answers."""
    folder = tmp_path_factory.mktemp("made") / "serving"
    for mark in ("v1", "v2"):
        write_bundle(folder / mark, **tables(mark), version=mark, depth=20)
    activate(folder, "v2")
    activate(folder, "v1")
    return folder


@pytest.fixture
def serving(made, tmp_path):
    """A copy that may be damaged."""
    shutil.copytree(made, tmp_path / "serving", symlinks=True)
    return tmp_path / "serving"


def write(serving, name: str, shape: bytes) -> None:
    """Put a shape in the place of a file; a bundle's manifest says that it belongs there."""
    (serving / name).write_bytes(shape)
    if name in ("v2/card.json", "v2/profiles.json"):
        (serving / "v2/manifest.json").unlink()
        seal(serving / "v2", {"version": "v2", "depth": 20})


@shaped
@pytest.mark.parametrize("name", FILES)
def test_a_file_beside_the_bundles_in_a_wrong_shape(serving, name, shape):
    write(serving, name, shape)
    refused = []
    for step in (
        lambda: settle_pending(serving),
        lambda: read_log(serving),
        lambda: card_in(serving / "v2"),
        lambda: activate(serving, "v2"),
        lambda: take_back(serving),
        lambda: Bundle(serving / "v1"),
    ):
        try:
            step()
        except RetailError as e:
            refused.append(str(e))
    assert all("\n" not in said and said.endswith(".") for said in refused)
    if name.startswith("v2/"):
        assert (refused or (name, shape) == ("v2/profiles.json", b"[]")) and all(
            "v2" in said or "earlier bundle" in said for said in refused
        )
    assert current_bundle(serving).name in ("v1", "v2")
    if name != FORGOTTEN:
        assert recommend(Bundle(current_bundle(serving)), "C00001")["recommendations"]


@shaped
def test_a_service_does_not_take_a_bundle_whose_card_is_none(serving, shape):
    app = api._make_app(api.Settings(serving, log=False))
    with TestClient(app, base_url="http://localhost") as client:
        write(serving, "v2/card.json", shape)
        point_at(serving, "v2")
        app.state.desk.refresh()
        health = client.get("/health").json()
        assert health["model_version"] == "v1" and health["status"] == "ok"
        assert "The bundle v2 is of no use: its card.json does not hold" in health["refused_bundle"]
        assert client.get("/metrics").status_code == client.get("/v1/model").status_code == 200


@shaped
def test_a_list_of_the_forgotten_in_a_wrong_shape_lets_nobody_back(serving, shape):
    (serving / FORGOTTEN).write_bytes(shape)
    with pytest.raises(RunError, match="which says who is to be forgotten, cannot be read"):
        read_forgotten(serving)


@shaped
def test_papers_of_a_run_in_a_wrong_shape(tmp_path, shape):
    (tmp_path / "config.yaml").write_text("name: shop\n")
    for name in ("manifest.json", "scratch.json"):
        (tmp_path / name).write_bytes(shape)
        with pytest.raises(RunError, match=name):
            read_manifest(tmp_path)
            open_run(run_dir=tmp_path)
        (tmp_path / name).unlink()


@pytest.mark.parametrize("shape", ["[]", "[5]", "5", '"version"', "null"])
def test_facts_of_a_run_in_a_wrong_shape(tmp_path, shape):
    run = Run(Config(name="shop"), tmp_path)
    (tmp_path / "metrics").mkdir()
    run.file("ranking_metrics").write_text(shape)
    words = "ranking.json is not what this version writes: expected an object, found"
    with pytest.raises(RunError, match=words):
        run.read("ranking_metrics")
    with pytest.raises(RunError, match=words):
        _stage_numbers(run, "05")
