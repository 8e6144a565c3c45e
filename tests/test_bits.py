"""One flipped bit in any file of a run, a bundle, the ledger or a list of those who are forgotten,
or in a converted source: it is refused with a sentence, means the same, or is made anew. BITS is
how many are flipped in each kind of file (`make soak`).
"""

import json
import os
import shutil
from pathlib import Path
from random import Random

import pandas as pd
import pytest
from conftest import copy_of_small

from retail_ci.cli import answer, campaigns, export, models_promote, site
from retail_ci.core.errors import RunError
from retail_ci.core.runs import ARTEFACTS, Run, check_run, open_run, read_manifest
from retail_ci.core.suppression import FORGOTTEN, add_forgotten, read_forgotten
from retail_ci.export.ledger import draw_wave, read_wave
from retail_ci.pipeline.chain import chain
from retail_ci.pipeline.manifest import copy_earlier, open_staging
from retail_ci.serve.bundle import Bundle, activate, current_bundle
from retail_ci.serve.promotion import promote

BITS = int(os.environ.get("BITS", "5"))


@pytest.fixture(scope="module")
def project(small, tmp_path_factory):
    """A copy of the small project, whose files may be damaged."""
    return copy_of_small(small, tmp_path_factory.mktemp("bits") / "project")


@pytest.fixture(scope="module")
def run(project) -> Path:
    """The finished run."""
    folder = (project.home("small") / "current").resolve()
    for file in folder.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
    return folder


def flip(file: Path, dice: Random) -> bytes:
    """Flip one bit of a file; what it was before."""
    before = file.read_bytes()
    place = dice.randrange(8 * len(before))
    after = bytearray(before)
    after[place // 8] ^= 1 << place % 8
    file.write_bytes(after)
    return before


@pytest.mark.parametrize("kind", ["parquet", "csv", "json", "npz", "png", "ipynb", "yaml"])
def test_a_flipped_bit_in_a_run_is_noticed(run, kind):
    papers = read_manifest(run)
    files = sorted(p for p in run.rglob(f"*.{kind}") if p.name != "manifest.json")
    names = {run / a.path: a.name for a in ARTEFACTS.values()}
    dice = Random(kind)
    for _ in range(BITS * 4):
        file = dice.choice(files)
        before = flip(file, dice)
        with pytest.raises(RunError, match=f"{file.name} is not as the run has written it"):
            if file in names:
                open_run(run_dir=run).read(names[file])
            check_run(run)
        file.write_bytes(before)
    check_run(run)
    assert files and read_manifest(run) == papers


def test_a_flipped_bit_in_a_manifest_is_noticed_or_means_the_same(run):
    file = run / "manifest.json"
    papers = read_manifest(run)
    dice = Random("manifest")
    noticed = 0
    for _ in range(BITS * 20):
        before = flip(file, dice)
        try:
            assert read_manifest(run) == papers
        except RunError as e:
            noticed += "manifest.json is not as the run has written it" in str(e)
        file.write_bytes(before)
    assert noticed > BITS * 10


def test_a_flipped_bit_in_a_bundle_is_noticed_or_means_the_same(project):
    folder = current_bundle(project.home("small") / "serving")
    whole = Bundle(folder).manifest
    dice = Random("bundle")
    for file in sorted(folder.iterdir()):
        for _ in range(BITS if file.stat().st_size else 0):
            before = flip(file, dice)
            try:
                opened = Bundle(folder, quick=True)
                assert file.name == "manifest.json"
                opened.manifest.pop("seal", None)
                assert opened.manifest.items() <= whole.items()
            except RunError as e:
                assert "rollback" in str(e)
            file.write_bytes(before)
    assert Bundle(folder).manifest == whole


def test_a_flipped_bit_in_the_ledger_is_noticed_or_means_the_same(tmp_path):
    lists = pd.DataFrame({"customer_id": [f"C{n}" for n in range(40)], "segment": "Loyal"})
    draw_wave(lists.assign(group="send"), "spring", tmp_path, day="2026-03-01")
    file = tmp_path / "spring.parquet"
    whole = read_wave(tmp_path, "spring")
    dice = Random("ledger")
    noticed = 0
    for _ in range(BITS * 10):
        before = flip(file, dice)
        try:
            wave = read_wave(tmp_path, "spring")
            pd.testing.assert_frame_equal(wave.table, whole.table)
            facts = [f for f in vars(whole) if f != "table"]
            assert [getattr(wave, f) for f in facts] == [getattr(whole, f) for f in facts]
        except RunError as e:
            noticed += "does not fit its checksum" in str(e)
        file.write_bytes(before)
    assert noticed > BITS * 3, "half of the bits are of what nobody reads"


def test_a_flipped_bit_brings_nobody_back_who_was_forgotten(tmp_path):
    whole = add_forgotten(tmp_path, [f"C{n}" for n in range(10)])
    dice = Random("forgotten")
    noticed = 0
    for _ in range(BITS * 10):
        before = flip(tmp_path / FORGOTTEN, dice)
        try:
            assert read_forgotten(tmp_path) == whole
        except RunError as e:
            noticed += "which says who is to be forgotten, cannot be read" in str(e)
        (tmp_path / FORGOTTEN).write_bytes(before)
    assert noticed > BITS * 5


def test_a_flipped_bit_in_a_converted_source_is_read_anew(project):
    """Also one in the list of their checksums; the next run reads those sources again."""
    home = project.home("small")
    folder = home / "staging"
    files = sorted(folder.glob("*.parquet"))
    assert files and open_staging(home, fresh=False) == {p.name for p in files}
    dice = Random("staging")
    for _ in range(BITS * 4):
        file = dice.choice([*files, folder / "sums.json"])
        kept = {p.name: p.read_bytes() for p in folder.iterdir()}
        flip(file, dice)
        ready = open_staging(home, fresh=False)
        assert file.name not in ready, "nothing is taken whose bytes are not as they were written"
        assert all((folder / name).read_bytes() == kept[name] for name in ready)
        for name, data in kept.items():
            (folder / name).write_bytes(data)
    assert open_staging(home, fresh=False) == {p.name for p in files}


def test_nothing_is_made_from_a_damaged_run(project, run, monkeypatch, capsys):
    monkeypatch.chdir(project.root)
    dice = Random("commands")
    for command, file, options in (
        (export, "data/transactions.parquet", {}),
        (campaigns, "data/segments.parquet", {}),
        (models_promote, "models/recommender.npz", {"force": "a trial"}),
        (site, "figures/01_pareto.png", {}),
    ):
        before = flip(run / file, dice)
        assert answer(command, config="small", **options) == 4, file
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert f"{Path(file).name} is not as the run has written it" in said
        assert "Run the chain again with `retail-ci run`" in said
        (run / file).write_bytes(before)


def test_a_later_start_takes_nothing_that_is_damaged(project, run, tmp_path):
    papers = json.loads((run / "manifest.json").read_text())
    config = Run(open_run(run_dir=run).config, run).config
    before = flip(run / "data/features.parquet", Random(7))
    notebooks = [p for p in chain(project.root / "nbs") if p.stem < "03"]
    with pytest.raises(RunError, match=r"features.parquet is not as the run has written it"):
        copy_earlier(notebooks, project.home("small"), tmp_path, config, papers["inputs"])
    (run / "data/features.parquet").write_bytes(before)


def test_a_damaged_bundle_is_written_anew_as_its_message_says(project, run, tmp_path):
    """The same bytes as before, also where only the manifest was hurt."""
    made = Run(open_run(run_dir=run).config, run)
    serving = tmp_path / "serving"
    shutil.copytree(project.home("small") / "serving", serving, symlinks=True)
    folder = current_bundle(serving)
    whole = {p.name: p.read_bytes() for p in folder.iterdir()}
    for name in ("any_items.bin", "manifest.json"):
        (folder / name).write_bytes(whole[name][: len(whole[name]) // 2])
        with pytest.raises(RunError, match="or write it anew with `retail-ci models promote`"):
            activate(serving, folder.name)
        assert promote(made, serving, force="as the message says")[0]
        assert {p.name: p.read_bytes() for p in folder.iterdir()} == whole
