"""Checkpoints come back exactly, without pickle, or not at all."""

import math
import pickle
import pickletools
from pathlib import Path

import pytest
import torch
from torch import nn

from bioattn.errors import BioattnWarning, DataError
from bioattn.train.checkpoint_io import SafeCheckpointIO, find_checkpoint, read_checkpoint, write_checkpoint


def assert_same(a, b) -> None:
    """Equal in value and type, tensors bit for bit."""
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and a.shape == b.shape
        assert a.reshape(-1).view(torch.uint8).equal(b.reshape(-1).view(torch.uint8))
    elif isinstance(a, dict):
        assert list(a) == list(b)
        assert [type(k) for k in a] == [type(k) for k in b]
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif isinstance(a, float) and math.isnan(a):
        assert math.isnan(b)
    else:
        assert a == b


def trained_state() -> dict:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    for _ in range(4):
        optimizer.zero_grad()
        model(torch.randn(7, 5)).square().sum().backward()
        optimizer.step()
        schedule.step()
    return {
        "state_dict": dict(model.state_dict()),
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [schedule.state_dict()],
    }


def test_optimizer_and_schedule_come_back_exactly(tmp_path):
    """AdamW's and the schedule's state, with integer keys and 0-d step tensors, is the same after a round trip."""
    state = trained_state()
    write_checkpoint(tmp_path / "a.ckpt", state)
    assert_same(state, read_checkpoint(tmp_path / "a.ckpt"))


def test_awkward_values_come_back_exactly(tmp_path):
    """Infinities, nan, tuples, None, booleans, big integers, empty containers and odd keys keep value and type."""
    shared = torch.arange(6.0)
    state = {
        "floats": [math.inf, -math.inf, math.nan, 0.1, 1e-308, -0.0],
        "tuple": (1, (2.0, None), []),
        7: {"True": True, False: 0},
        ("a", 1): {},
        "big": 2**63 + 1,
        "tensors": [torch.zeros(0), torch.tensor(3), torch.tensor([True]), torch.ones(2, dtype=torch.bfloat16)],
        "strided": torch.arange(12).reshape(3, 4).t(),
        "shared": [shared, shared[2:]],
        "like a tag": {"tensor": "0"},
        "text": "\N{GREEK SMALL LETTER ALPHA}\n",
    }
    write_checkpoint(tmp_path / "a.ckpt", state)
    assert_same(state, read_checkpoint(tmp_path / "a.ckpt"))


def test_what_cannot_come_back_is_refused_by_name(tmp_path):
    """An object that JSON and safetensors cannot hold raises and names its place, and no file appears."""
    with pytest.raises(TypeError, match=r"state\['a'\]\[1\] is a set"):
        write_checkpoint(tmp_path / "a.ckpt", {"a": [1, {2}]})
    assert not list(tmp_path.iterdir())


def test_no_pickle_on_disk(tmp_path):
    """The file is not a pickle, nor a zip that could hold one."""
    path = tmp_path / "a.ckpt"
    SafeCheckpointIO().save_checkpoint(trained_state(), path)
    content = path.read_bytes()
    assert not content.startswith(b"PK")
    with pytest.raises((ValueError, pickle.UnpicklingError)):
        list(pickletools.genops(content))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_cut_file_is_detected(tmp_path, share):
    """A checkpoint cut at any place raises on reading, and is ignored with a warning on searching."""
    path = tmp_path / "a.ckpt"
    write_checkpoint(path, trained_state())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match="not a complete checkpoint"):
        read_checkpoint(path)
    with pytest.warns(BioattnWarning, match="ignored"):
        assert find_checkpoint(path) is None


def test_changed_byte_is_detected(tmp_path):
    """One changed bit in a weight is detected by the checksum."""
    path = tmp_path / "a.ckpt"
    write_checkpoint(path, trained_state())
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="checksum"):
        read_checkpoint(path)


def test_foreign_safetensors_file_is_refused(tmp_path):
    """A safetensors file without our structure is no checkpoint."""
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "a.ckpt")
    with pytest.raises(DataError, match="not a complete checkpoint"):
        read_checkpoint(tmp_path / "a.ckpt")


def test_no_checkpoint_is_no_warning(tmp_path, recwarn):
    """Searching where nothing is returns None in silence; reading there raises."""
    assert find_checkpoint(tmp_path / "a.ckpt") is None
    assert not recwarn
    with pytest.raises(DataError, match="no such checkpoint"):
        read_checkpoint(tmp_path / "a.ckpt")


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    """A write that fails half-way leaves the earlier checkpoint whole and no temporary file."""
    from bioattn.train import checkpoint_io

    path = tmp_path / "a.ckpt"
    write_checkpoint(path, {"a": 1})

    def full_disk(tensors, target, metadata):
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_io, "save_file", full_disk)
    with pytest.raises(DataError, match="No space left"):
        write_checkpoint(path, {"a": 2})
    assert read_checkpoint(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.ckpt"]


def test_plugin_removes(tmp_path):
    """The plugin removes a checkpoint, and does not mind if it is gone."""
    plugin = SafeCheckpointIO()
    plugin.save_checkpoint({"a": 1}, tmp_path / "a.ckpt")
    assert plugin.load_checkpoint(tmp_path / "a.ckpt", map_location="cpu", weights_only=True) == {"a": 1}
    plugin.remove_checkpoint(tmp_path / "a.ckpt")
    plugin.remove_checkpoint(tmp_path / "a.ckpt")
    assert not list(tmp_path.iterdir())
