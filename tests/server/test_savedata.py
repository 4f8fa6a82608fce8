import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from engine.errors import ConfigError, RequestError
from server import savedata
from server.savedata import SLOTS, TITLE_LIMIT, UNTITLED, Save, SaveData, SaveDataError

ROOT = Path(__file__).resolve().parents[2]
STORY = Save("A tale", "kcpp_lzma_b64", "QUJD")


def test_a_new_file_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "saves.json"
    saves = SaveData.open(path)
    assert saves.titles() == [""] * SLOTS
    assert saves.load(0) is None
    assert json.loads(path.read_bytes()) == {}


def test_saves_outlive_the_server(tmp_path: Path) -> None:
    path = tmp_path / "saves.json"
    saves = SaveData.open(path)
    saves.save(3, STORY)
    saves.save(SLOTS - 1, Save("", "", "text \u2028 é \ud83d"))
    again = SaveData.open(path)
    assert again.load(3) == STORY
    assert again.load(SLOTS - 1) == Save(UNTITLED, "", "text \u2028 é \ud83d")
    assert again.titles() == ["", "", "", "A tale", *[""] * (SLOTS - 5), UNTITLED]
    again.save(3, Save("", "", ""))
    assert SaveData.open(path).titles()[3] == ""


def test_the_file_is_kobolds(tmp_path: Path) -> None:
    path = tmp_path / "saves.jsondb"
    SaveData.open(path).save(1, STORY)
    assert json.loads(path.read_bytes()) == {
        "1": {"title": "A tale", "format": "kcpp_lzma_b64", "data": "QUJD"}
    }


@pytest.mark.parametrize("slot", [-1, SLOTS, 10**30])
def test_there_are_no_other_slots(tmp_path: Path, slot: int) -> None:
    saves = SaveData.open(tmp_path / "f")
    assert saves.load(slot) is None
    with pytest.raises(RequestError, match="0 to 11"):
        saves.save(slot, STORY)


def test_what_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(savedata, "DATA_LIMIT", 10)
    saves = SaveData.open(tmp_path / "f")
    saves.save(0, Save("t" * TITLE_LIMIT, "f" * TITLE_LIMIT, "d" * 10))
    for save in (
        Save("t" * (TITLE_LIMIT + 1), "", "d"),
        Save("", "f" * (TITLE_LIMIT + 1), "d"),
        Save("", "", "d" * 11),
        Save("", "", "é" * 6),
    ):
        with pytest.raises(RequestError):
            saves.save(1, save)
    monkeypatch.setattr(savedata, "FILE_LIMIT", (tmp_path / "f").stat().st_size)
    with pytest.raises(RequestError, match="empty a slot"):
        saves.save(1, STORY)
    assert SaveData.open(tmp_path / "f").titles()[1] == "", "what was written can be read again"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"0": 5}',
        b'{"0": {"title": "t", "format": "f"}}',
        b'{"0": {"title": "t", "format": "f", "data": 1}}',
        b'{"12": {"title": "t", "format": "f", "data": "d"}}',
        b'{"01": {"title": "t", "format": "f", "data": "d"}}',
        b'{"-1": {"title": "t", "format": "f", "data": "d"}}',
        '{"٣": {"title": "t", "format": "f", "data": "d"}}'.encode(),
        b'{"' + b"1" * 5000 + b'": {"title": "t", "format": "f", "data": "d"}}',
        b'{"a\\nb": {}}',
    ],
)
def test_a_damaged_file_is_told_and_left_alone(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "saves.json"
    path.write_bytes(raw)
    with pytest.raises(ConfigError) as caught:
        SaveData.open(path)
    assert "saves.json" in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400
    assert path.read_bytes() == raw
    assert os.listdir(tmp_path) == ["saves.json"]


@pytest.mark.parametrize("name", [".", "no/such/folder/f", "f/g"])
def test_a_place_without_a_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "f").write_bytes(b"{}")
    with pytest.raises(ConfigError) as caught:
        SaveData.open(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    saves = SaveData.open(path)
    saves.save(0, STORY)

    def fail(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(SaveDataError, match="No space left"):
        saves.save(0, Save("other", "", "data"))
    monkeypatch.undo()
    assert saves.load(0) == STORY
    assert SaveData.open(path).load(0) == STORY
    assert os.listdir(tmp_path) == ["f"]


def test_what_changes_nothing_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "f"
    saves = SaveData.open(path)
    saves.save(0, STORY)
    before = path.stat().st_ino
    saves.save(0, STORY)
    saves.save(5, Save("", "", ""))
    assert path.stat().st_ino == before


def test_threads_lose_no_saves(tmp_path: Path) -> None:
    saves = SaveData.open(tmp_path / "f")

    def work(slot: int) -> None:
        for count in range(10):
            saves.save(slot, Save(f"{slot}-{count}", "", "d"))

    threads = [threading.Thread(target=work, args=(slot,)) for slot in range(SLOTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = [f"{slot}-9" for slot in range(SLOTS)]
    assert saves.titles() == expected
    assert SaveData.open(tmp_path / "f").titles() == expected


SAVER = """
import sys
from pathlib import Path
from server.savedata import Save, SaveData
saves = SaveData.open(Path(sys.argv[1]))
print("ready", flush=True)
count = 0
while True:
    count += 1
    for slot in (0, 1):
        saves.save(slot, Save(str(count), "", str(count) * 50_000))
"""


def test_a_kill_at_any_moment_leaves_whole_saves(tmp_path: Path) -> None:
    path = tmp_path / "saves.json"
    moments = random.Random(7)
    written = 0
    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", SAVER, str(path)], cwd=ROOT, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(moments.uniform(0.02, 0.15))
            process.send_signal(signal.SIGKILL)
        saves = SaveData.open(path)
        found = [saves.load(slot) for slot in (0, 1)]
        written += sum(save is not None for save in found)
        assert all(save is None or save.data == save.title * 50_000 for save in found)
    assert written > 0, "no process came as far as to save"


class SlotsMachine(RuleBasedStateMachine):
    """Any saving and opening anew beside a plain dict."""

    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.path = self.folder / f"{id(self)}-{time.monotonic_ns()}"
        self.saves = SaveData.open(self.path)
        self.model: dict[int, Save] = {}

    @rule(
        slot=st.integers(0, SLOTS - 1),
        title=st.text(max_size=3),
        form=st.text(max_size=2),
        data=st.text(max_size=3),
    )
    def save(self, slot: int, title: str, form: str, data: str) -> None:
        self.saves.save(slot, Save(title, form, data))
        self.model.pop(slot, None)
        if data:
            self.model[slot] = Save(title or UNTITLED, form, data)

    @rule()
    def open_anew(self) -> None:
        self.saves = SaveData.open(self.path)

    @invariant()
    def slots_are_the_models(self) -> None:
        assert [self.saves.load(slot) for slot in range(SLOTS)] == [
            self.model.get(slot) for slot in range(SLOTS)
        ]


def test_slots_are_a_dictionary(tmp_path: Path) -> None:
    machine = type("Machine", (SlotsMachine,), {"folder": tmp_path})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=20, stateful_step_count=15, deadline=None)
    )
