"""Training killed with SIGKILL and called again ends as if it had not been killed."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from toy_training import KILLED, small_run, stop_at, toy_tables

from bioattn.errors import BioattnWarning
from bioattn.train import module as train_module
from bioattn.train.checkpoint_io import read_checkpoint, write_checkpoint
from bioattn.train.fit import FitResult, fit
from bioattn.train.loop import CODES

ROOT = Path(__file__).parents[3]
RUN = small_run(**KILLED["plain"])
#: The same changes of sequences as with workers, made by the training process itself.
ALONE = small_run(**{**KILLED["workers"], "workers": 0})
SAME = ["epoch", "step", "learning_rate", "train_loss", "validation_loss", "validation_metric"]


def train(work_dir: Path, run=RUN) -> FitResult:
    return fit(run, *toy_tables(), work_dir=work_dir)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> FitResult:
    return train(tmp_path_factory.mktemp("whole"))


def assert_same_weights(a: FitResult, b: FitResult) -> None:
    for (name, x), y in zip(a.model.state_dict().items(), b.model.state_dict().values(), strict=True):
        assert torch.equal(x, y), name


def kill_at(work_dir: Path, moment: str, what: str = "plain") -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    script = ROOT / "tests" / "toy_training.py"
    command = [sys.executable, str(script), str(work_dir), moment, what]
    done = subprocess.run(command, env=environment, cwd=work_dir, check=False)
    assert done.returncode == -9


@pytest.mark.parametrize(
    "moment",
    [pytest.param("step:1", marks=pytest.mark.slow), "step:17", pytest.param("last:2", marks=pytest.mark.slow)],
)
def test_killed_training_ends_with_the_same_weights(tmp_path, uninterrupted, moment):
    """SIGKILL in the first epoch, in the middle of a later one, or between two checkpoints changes no bit."""
    kill_at(tmp_path, moment)
    resumed = train(tmp_path)
    assert resumed.record["resumed"] is (moment != "step:1")
    assert_same_weights(resumed, uninterrupted)
    assert resumed.history[SAME].equals(uninterrupted.history[SAME])
    assert not list(tmp_path.glob(".*half*"))


@pytest.mark.slow
def test_killed_training_with_workers_ends_with_the_same_weights(tmp_path):
    """SIGKILL in an epoch that two other processes prepare: these end too, and a second call changes no bit."""
    kill_at(tmp_path, "step:17", "workers")
    assert (tmp_path / CODES).exists()
    for _ in range(100):
        if not processes_in(tmp_path):
            break
        time.sleep(0.1)
    assert not processes_in(tmp_path)
    resumed = train(tmp_path, small_run(**KILLED["workers"]))
    assert resumed.record["resumed"]
    assert not (tmp_path / CODES).exists()
    whole = train(tmp_path / "whole", ALONE)
    assert_same_weights(resumed, whole)
    assert resumed.history[SAME].equals(whole.history[SAME])


def processes_in(folder: Path) -> list[str]:
    """Processes whose working directory is a folder, as far as this system tells."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended in the meantime, or not ours
            if (process / "cwd").resolve(strict=True) == folder.resolve():
                found.append(process.name)
    return found


def test_interrupted_epoch_repeats_exactly(tmp_path, uninterrupted, monkeypatch):
    """An exception in the middle of an epoch, then a second call, changes no bit (the fast cousin of SIGKILL)."""
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="stop"):
        stop_at(17, patch)
        train(tmp_path)
    resumed = train(tmp_path)
    assert resumed.record["resumed"]
    assert_same_weights(resumed, uninterrupted)


def test_workers_and_a_stop_change_no_bit(tmp_path, monkeypatch):
    """Stopped with two workers and all augmentation, then finished without workers: as if it had never stopped."""
    whole = train(tmp_path / "whole", ALONE)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="stop"):
        stop_at(17, patch)
        train(tmp_path / "stopped", small_run(**KILLED["workers"]))
    assert not (tmp_path / "stopped" / CODES).exists()
    resumed = train(tmp_path / "stopped", ALONE)
    assert resumed.record["resumed"]
    assert_same_weights(resumed, whole)
    assert resumed.history[SAME].equals(whole.history[SAME])


def test_finished_training_is_not_repeated(tmp_path, uninterrupted, monkeypatch):
    """A second call on a finished folder trains no step and returns the same model."""
    train(tmp_path)
    monkeypatch.setattr(train_module.TrainingModule, "training_step", None)
    assert_same_weights(train(tmp_path), uninterrupted)


def test_other_settings_start_anew(tmp_path):
    """A checkpoint of other settings is refused with a warning that says what differs."""
    train(tmp_path, small_run(epochs=1))
    with pytest.warns(BioattnWarning, match=r"another training \(differs in: digest\)"):
        result = train(tmp_path, small_run(epochs=2))
    assert len(result.history) == 2
    assert not result.record["resumed"]


def test_other_augmentation_starts_anew(tmp_path):
    """A checkpoint of training on sequences that were changed otherwise is refused."""
    train(tmp_path, small_run(epochs=1, augment={"mutation_rate": 0.1}))
    with pytest.warns(BioattnWarning, match=r"another training \(differs in: digest\)"):
        train(tmp_path, small_run(epochs=1, augment={"mutation_rate": 0.2}))


def test_other_data_start_anew(tmp_path):
    """A checkpoint of the same settings on other sequences is refused."""
    run = small_run(epochs=1)
    train(tmp_path, run)
    with pytest.warns(BioattnWarning, match=r"differs in: data"):
        fit(run, *toy_tables(seed=5), work_dir=tmp_path)


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
def test_damaged_checkpoint_starts_anew(tmp_path, name):
    """A checkpoint that was cut short is ignored with a warning and the result is that of a fresh start."""
    run = small_run(epochs=2)
    whole = train(tmp_path, run)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.warns(BioattnWarning, match="starts"):
        again = train(tmp_path, run)
    assert not again.record["resumed"]
    assert_same_weights(again, whole)


def test_early_stop_survives_a_restart(tmp_path):
    """Training that had stopped early stays stopped, even if killed right after the last checkpoint."""
    run = small_run(epochs=40, patience=1, learning_rate=0.03)
    first = train(tmp_path, run)
    assert first.record["stopped_early"] and len(first.history) < 40
    again = train(tmp_path, run)
    assert len(again.history) == len(first.history)
    assert_same_weights(first, again)


def test_early_stop_waits_for_the_second_half(tmp_path, monkeypatch):
    """A loss that rises while the learning rate is high stops nothing: it may still fall when the rate does."""
    summed_up = train_module.TrainingModule.on_validation_epoch_end

    def rising(module: train_module.TrainingModule) -> None:
        summed_up(module)
        module.epoch_values["validation_loss"] = 1.0 + module.current_epoch

    monkeypatch.setattr(train_module.TrainingModule, "on_validation_epoch_end", rising)
    result = train(tmp_path, small_run(epochs=12, patience=2))
    assert result.record["stopped_early"] and result.record["best_epoch"] == 0
    assert len(result.history) == 8  # the first six, of which none counts, and two more


def test_best_weights_are_returned(tmp_path):
    """The returned weights are those of the epoch with the smallest validation loss, not the last."""
    # Permuted labels cannot be learned, so validation gets worse with every epoch after the first few.
    run = small_run(epochs=8, learning_rate=0.03, patience=8, permute_labels=True)
    result = train(tmp_path, run)
    best = int(result.history["validation_loss"].idxmin())
    assert best < 7
    assert result.record["best_epoch"] == best
    stored = read_checkpoint(tmp_path / "best.ckpt")
    assert stored["epoch"] == best
    assert torch.equal(stored["state_dict"]["network.readout.weight"], result.model.readout.weight)


def test_marking_is_checked_not_trusted(tmp_path):
    """A checkpoint without identity is never taken for ours."""
    run = small_run(epochs=1)
    train(tmp_path, run)
    state = read_checkpoint(tmp_path / "last.ckpt")
    state.pop("identity")
    write_checkpoint(tmp_path / "last.ckpt", state)
    with pytest.warns(BioattnWarning, match="another training"):
        train(tmp_path, run)
