"""The device that settings mean, and how loudly an idle GPU is said."""

import warnings

import pytest
import torch

from bioattn.errors import BioattnWarning, ConfigError
from bioattn.train import devices
from bioattn.train.devices import Device, resolve_device


@pytest.fixture
def gpu(monkeypatch):
    """A machine whose GPU PyTorch can use."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Toy GPU")


@pytest.fixture
def no_gpu(monkeypatch, tmp_path):
    """A machine without GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "_DRIVER", tmp_path / "absent")


def test_auto_takes_the_gpu_in_bf16(gpu):
    """auto means CUDA with bf16 where there is one, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolve_device("auto", "auto") == Device("cuda", "bf16-mixed", "Toy GPU")


def test_old_gpu_gets_float32(gpu, monkeypatch):
    """auto precision is float32 on a GPU that cannot do bf16."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert resolve_device("auto", "auto").precision == "32-true"


def test_auto_takes_the_cpu_in_float32(no_gpu):
    """auto means the CPU with float32 where there is no GPU, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolve_device("auto", "auto") == Device("cpu", "32-true", "CPU")


def test_idle_gpu_is_said_loudly(gpu):
    """Choosing the CPU beside a usable GPU warns and names the way out."""
    with pytest.warns(BioattnWarning, match="GPU IS PRESENT BUT UNUSED.*set train.device to 'auto'"):
        assert resolve_device("cpu", "auto").accelerator == "cpu"


def test_gpu_that_pytorch_cannot_use_is_said_loudly(no_gpu, monkeypatch, tmp_path):
    """A loaded NVIDIA driver with a PyTorch that cannot use it warns."""
    driver = tmp_path / "version"
    driver.write_text("driver")
    monkeypatch.setattr(devices, "_DRIVER", driver)
    with pytest.warns(BioattnWarning, match="install a CUDA build"):
        assert resolve_device("auto", "auto").accelerator == "cpu"


def test_asked_for_gpu_that_is_not_there(no_gpu):
    """device 'cuda' without a GPU is an error, never a silent fallback."""
    with pytest.raises(ConfigError, match="train.device is 'cuda'.*'auto' or 'cpu'"):
        resolve_device("cuda", "auto")


def test_stated_precision_is_kept(gpu, no_gpu):
    """A stated precision overrides auto on either device."""
    assert resolve_device("cpu", "bf16-mixed").precision == "bf16-mixed"
