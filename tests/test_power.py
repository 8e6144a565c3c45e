"""Power is lost at any moment of a publication, a promotion, a rollback, a draw into the ledger, or
an erasure: what is found afterwards is the old state or the new one, whole, and the new one once
the command has said that it is done. An erasure may stop half way, but not before the list of those
who are suppressed is safe.

A recorder stands between the code and `os`. Before every call that changes names or waits for the
disk it notes what the folder holds, and what of it is safe: the bytes of a file at its last fsync,
and the names in a folder at that folder's. Then it builds what a power loss may leave: unsafe bytes
gone or cut in half, all unsafe names gone, or any one of them gone or alone kept.
"""

import contextlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest
import yaml
from test_crash import small_run

from retail_ci.core.config import Config
from retail_ci.core.runs import STAGE, Run, check_run
from retail_ci.core.suppression import add_forgotten, read_forgotten
from retail_ci.export.ledger import draw_wave, erase_customers, list_waves, read_wave
from retail_ci.pipeline.forget import _clear_home, _clear_serving
from retail_ci.pipeline.manifest import locked, prune, settle, unfinished, write_manifest
from retail_ci.serve.bundle import Bundle, activate, current_bundle, read_stack, rollback, self_test
from retail_ci.serve.promotion import promote, read_log, settle_pending

CALLS = ("fsync", "replace", "rename", "link", "symlink", "unlink", "remove", "rmdir", "mkdir")
Names = dict[str, tuple]  # name: ("link", target), ("file", inode) or ("folder", inode)
State = dict[str, bytes | str | None]  # path: a file's bytes, a link's target, None for a folder


def in_the_making(name: str) -> bool:
    """Whether a folder is being made or removed; what it holds is nobody's yet, or no longer."""
    return bool(STAGE.fullmatch(name)) or name.endswith(".partial")


class Disk:
    """What a power loss may leave of a folder."""

    def __init__(self, root: Path):
        self.root = root
        self.handles: dict[int, int] = {}  # held open, so that no inode is used twice
        self.safe_bytes: dict[int, bytes] = {}
        self.safe_names: dict[int, Names] = {}
        self.states: dict[int, State] = {}  # all that may be found, by fingerprint
        self.last: list[State] = []  # what may be found after the last call
        self.top = os.stat(root).st_ino
        for inode, names in self.scan().items():
            self.safe_names[inode] = names
            files = [inode for kind, inode in names.values() if kind == "file"]
            self.safe_bytes |= {file: self.bytes_of(file) for file in files}

    def scan(self) -> dict[int, Names]:
        """The names in every folder, as the programs see them."""
        found = {}
        folders = [self.root]
        while folders:
            folder = folders.pop()
            names: Names = {}
            for path in folder.iterdir():
                facts = path.lstat()
                if stat.S_ISLNK(facts.st_mode):
                    names[path.name] = ("link", os.readlink(path))
                    continue
                kind = "folder" if stat.S_ISDIR(facts.st_mode) else "file"
                names[path.name] = (kind, facts.st_ino)
                if facts.st_ino not in self.handles:
                    self.handles[facts.st_ino] = os.open(path, os.O_RDONLY)
                folders += [path] if kind == "folder" else []
            found[os.stat(folder).st_ino] = names
        return found

    def bytes_of(self, inode: int) -> bytes:
        """What a file holds now, under whatever name."""
        handle = self.handles[inode]
        return os.pread(handle, os.fstat(handle).st_size, 0)

    def made_safe(self, handle: int) -> None:
        """A file or folder was seen through to the disk."""
        facts = os.fstat(handle)
        live = self.scan()
        if facts.st_ino in live:
            self.safe_names[facts.st_ino] = live[facts.st_ino]
        elif facts.st_ino in self.handles:
            self.safe_bytes[facts.st_ino] = self.bytes_of(facts.st_ino)

    def note(self) -> list[State]:
        """Add what a power loss at this moment may leave."""
        live = self.scan()
        now = [self.state(live, lambda inode: self.bytes_of(inode))]
        now += [self.state(live, self.lost), self.state(live, self.cut)]
        now.append(self.state({**live, **self.safe_names}, self.lost))
        for inode, names in live.items():
            safe = self.safe_names.get(inode, {})
            for name in {n for n in (*names, *safe) if names.get(n) != safe.get(n)}:
                gone = changed(names, name, safe.get(name))
                alone = changed(safe, name, names.get(name))
                now += [self.state({**live, inode: n}, self.lost) for n in (gone, alone)]
        for state in now:
            self.states[hash(tuple(sorted(state.items(), key=str)))] = state
        return now

    def lost(self, inode: int) -> bytes:
        """The bytes of a file that are safe."""
        return self.safe_bytes.get(inode, b"")

    def cut(self, inode: int) -> bytes:
        """Half of the bytes that are not safe."""
        data = self.bytes_of(inode)
        safe = self.lost(inode)
        return safe if data == safe else data[: (len(safe) + len(data)) // 2]

    def state(self, folders: dict[int, Names], read: Callable[[int], bytes]) -> State:
        """A tree, without what is in the making."""
        made: State = {}
        left = [("", self.top)]
        while left:
            place, inode = left.pop()
            for name, (kind, what) in folders.get(inode, {}).items():
                if kind == "folder" and in_the_making(name):
                    continue
                made[place + name] = {"link": what, "folder": None}.get(kind, b"")
                if kind == "file":
                    made[place + name] = read(what)
                left += [(f"{place}{name}/", what)] if kind == "folder" else []
        return made

    def close(self) -> None:
        for handle in self.handles.values():
            os.close(handle)


def changed(names: Names, name: str, entry: tuple | None) -> Names:
    """Names of a folder with another entry, or none."""
    rest = {n: e for n, e in names.items() if n != name}
    return rest if entry is None else {**rest, name: entry}


@contextlib.contextmanager
def recorded(root: Path) -> Iterator[Disk]:
    """Record what is done to a folder."""
    disk = Disk(root)
    quiet = False

    def watched(name: str) -> Callable:
        call = getattr(os, name)

        def wrapped(*args, **options):
            nonlocal quiet
            if quiet:
                return call(*args, **options)
            quiet = True
            try:
                disk.note()
                done = call(*args, **options)
                if name == "fsync":
                    disk.made_safe(args[0])
                return done
            finally:
                quiet = False

        return wrapped

    with contextlib.ExitStack() as stack:
        for name in CALLS:
            stack.enter_context(mock.patch.object(os, name, watched(name)))
        yield disk
        quiet = True
        disk.last = disk.note()
    disk.close()


def tried(disk: Disk, folder: Path, check: Callable[[Path], str]) -> set[str]:
    """Build each state and look at it; what was found, and that the last is the new one."""
    found = set()
    for n, state in enumerate([*disk.states.values(), *disk.last]):
        place = folder / f"state {n}"
        place.mkdir(parents=True)
        for name, held in sorted(state.items()):
            path = place / name
            if held is None:
                path.mkdir()
            elif isinstance(held, str):
                path.symlink_to(held)
            else:
                path.write_bytes(held)
        told = check(place)
        assert n < len(disk.states) or told == "new", (told, sorted(state))
        found.add(told)
    return found


def test_the_recorder_sees_what_is_not_flushed(tmp_path):
    """A file that is renamed before its bytes are safe is found empty, half, or not at all."""
    home = tmp_path / "disk"
    home.mkdir()
    (home / "facts").write_text("old facts")

    def careless() -> None:
        (home / "part").write_text("new facts")
        os.replace(home / "part", home / "facts")

    with recorded(home) as disk:
        careless()
    found = {state.get("facts") for state in disk.states.values()}
    assert found == {b"old facts", b"new facts", b"", b"new "}
    with recorded(home) as disk:
        pass
    assert {state.get("facts") for state in disk.states.values()} == {b"new facts"}


def publish_run(home: Path, kept: int) -> Run:
    """A small run, as the chain finishes one."""
    config = Config(name="shop")
    with locked(home), unfinished(home, config) as folder:
        run = Run(config, folder)
        run.write("data_metrics", {"kept": kept})
        scores = {"recency": 1, "frequency": 1, "r_score": 5, "f_score": 5, "m_score": 5}
        one = {"customer_id": ["C1"], "monetary": [float(kept)], "rfm_score": ["555"], **scores}
        run.write("features", pd.DataFrame(one))
        write_manifest(folder, config, {}, [], 0.0)
        return Run(config, settle(folder, "", 1))


@pytest.mark.parametrize("first", [True, False])
def test_a_run_is_published_whole(tmp_path, first):
    """Also while the one before it is removed."""
    root = tmp_path / "disk"
    root.mkdir()
    home = root / "runs/shop"
    if not first:
        publish_run(home, 1)
    with recorded(root) as disk:
        publish_run(home, 2)

    def check(place: Path) -> str:
        current = place / "runs/shop/current"
        if not current.exists():
            assert first
            return "none"
        check_run(current)
        run = Run(Config(name="shop"), current)
        kept = run.read("data_metrics")["kept"]
        assert run.read("features")["monetary"].tolist() == [kept]
        prune(place / "runs/shop", 1)
        check_run(current)
        return {1: "old", 2: "new"}[kept]

    assert tried(disk, tmp_path / "states", check) == {"none" if first else "old", "new"}


def served(place: Path) -> str | None:
    """The version that answers, once it was asked; what the log says about it is true."""
    serving = place / "serving"
    settle_pending(serving)
    folder = current_bundle(serving)
    if folder is None:
        return None
    self_test(Bundle(folder))
    assert read_stack(serving)[-1] == folder.name
    done = [line for line in read_log(serving) if line["promoted"]]
    assert done[-1]["version"] == folder.name
    assert not (serving / "pending.json").exists()
    return folder.name


def test_a_promotion_is_whole_and_so_is_its_log(tmp_path):
    root = tmp_path / "disk"
    serving = root / "serving"
    serving.mkdir(parents=True)
    runs = [small_run(tmp_path / f"run{seed}", seed) for seed in (1, 2)]
    old = promote(runs[0], serving, force="a trial")[1]
    with recorded(root) as disk:
        new = promote(runs[1], serving, force="a trial")[1]
    names = {old: "old", new: "new"}
    assert len(names) == 2
    assert tried(disk, tmp_path / "states", lambda place: names[served(place)]) == {"old", "new"}


def test_a_rollback_is_whole(tmp_path):
    root = tmp_path / "disk"
    serving = root / "serving"
    serving.mkdir(parents=True)
    runs = [small_run(tmp_path / f"run{seed}", seed) for seed in (1, 2)]
    first, second = (promote(run, serving, force="a trial")[1] for run in runs)
    activate(serving, second)
    with recorded(root) as disk:
        assert rollback(serving) == first

    def check(place: Path) -> str:
        now = current_bundle(place / "serving")
        self_test(Bundle(now))
        return {second: "old", first: "new"}[now.name]

    assert tried(disk, tmp_path / "states", check) == {"old", "new"}


@pytest.mark.parametrize("first", [True, False])
def test_a_wave_is_in_the_ledger_before_its_list_leaves(tmp_path, first):
    root = tmp_path / "disk"
    root.mkdir()
    people = pd.DataFrame({"customer_id": [f"C{n}" for n in range(30)], "segment": "Loyal"})
    lists = people.assign(group="send")
    if not first:
        draw_wave(lists, "spring", root / "ledger", day="2026-03-01")
    with recorded(root) as disk:
        draw_wave(lists, "summer", root / "ledger", day="2026-06-01")

    def check(place: Path) -> str:
        waves = list_waves(place / "ledger")["wave"].tolist()
        assert first or "spring" in waves
        return "new" if "summer" in waves else "old"

    assert tried(disk, tmp_path / "states", check) == {"old", "new"}


def test_who_is_forgotten_stays_forgotten(tmp_path):
    """The hash is safe before anything else happens, and nothing that was removed comes back."""
    root = tmp_path / "disk"
    home = root / "shop"
    home.mkdir(parents=True)
    add_forgotten(home, ["C1"])
    people = pd.DataFrame({"customer_id": [f"C{n}" for n in range(30)], "segment": "Loyal"})
    draw_wave(people.assign(group="send"), "spring", home / "ledger", day="2026-03-01")
    for name in ("r1", "r2", "powerbi", "serving/m1", "serving/m2"):
        (home / name).mkdir(parents=True)
        (home / name / "manifest.json").write_text(json.dumps("C2" if name[-1] != "2" else "C3"))
    (home / "serving/current").symlink_to("m2")
    (home / "mlflow.db").write_text("C2")
    with recorded(root) as disk:
        gone = add_forgotten(home, ["C2"])
        _clear_home(home, home / "r2", gone)
        erase_customers(home / "ledger", ["C2"])
        _clear_serving(home / "serving", "m2")

    def check(place: Path) -> str:
        shop = place / "shop"
        named = [p for p in shop.rglob("*") if p.is_file() and b"C2" in p.read_bytes()]
        table = read_wave(shop / "ledger", "spring").table
        assert len(table) == 30 and "C1" in read_forgotten(shop)
        assert (shop / "r2/manifest.json").read_text() == '"C3"'
        if "C2" not in read_forgotten(shop):
            assert len(named) == 4 and "C2" in set(table["customer_id"])
            return "old"
        return "half" if named or "C2" in set(table["customer_id"]) else "new"

    assert tried(disk, tmp_path / "states", check) == {"old", "half", "new"}


def test_a_config_of_a_run_is_read_after_a_power_loss(tmp_path):
    """The papers of a run are safe as well as its tables."""
    root = tmp_path / "disk"
    root.mkdir()
    with recorded(root) as disk:
        publish_run(root / "runs/shop", 1)
    for state in disk.last:
        (link,) = [name for name in state if name.endswith("/current")]
        text = state[f"runs/shop/{state[link]}/config.yaml"]
        assert yaml.safe_load(text)["name"] == "shop"
