"""GPUs that PyTorch or Warp cannot use are refused at the door, with the reason of each, and not in every round."""

import json
import subprocess
from types import SimpleNamespace

import pytest
import quick_conf
import torch

import scale
from bimangrasp.errors import InputError
from scale.engine import devices, gpu_probe
from scale.engine.devices import Device, usable_kernels
from scale.engine.gpu_probe import GpuProbe, warp_trouble

GPU, CPU = Device("gpu 0", "0"), Device("cpu", "")
OLD = warp_trouble("1.19.0", SimpleNamespace(driver_version=(12, 4), min_driver_version=(13, 0)))


@pytest.fixture
def says(monkeypatch):
    """Lets the probe find something."""

    def found(torch="", warp=""):
        monkeypatch.setattr(devices, "probe", lambda: GpuProbe(torch, warp))

    return found


def test_a_driver_too_old_for_warp_is_named_with_both_versions_and_the_remedy():
    assert "1.19.0 wants a driver for CUDA 13.0 or newer, this one is for CUDA 12.4" in OLD
    assert "update the driver" in OLD and "built for CUDA 12" in OLD and "kernels=plain" in OLD


def test_no_driver_and_no_device_are_other_reasons():
    none = SimpleNamespace(driver_version=None, min_driver_version=None)
    assert warp_trouble("1.19.0", none) == "NVIDIA Warp 1.19.0 finds no CUDA driver"
    empty = SimpleNamespace(driver_version=(13, 0), min_driver_version=(13, 0))
    assert warp_trouble("1.19.0", empty) == "NVIDIA Warp 1.19.0 finds no GPU (driver for CUDA 13.0)"


def test_kernels_auto_takes_the_plain_path_and_says_why(says):
    says(warp=OLD)
    kernels, note = usable_kernels("auto", [GPU, GPU], False)
    assert kernels == "plain" and OLD in note
    assert usable_kernels("plain", [GPU], False) == ("plain", "")


def test_kernels_warp_and_simulations_on_a_device_are_refused(says):
    says(warp=OLD)
    with pytest.raises(InputError, match="gpu 0: NVIDIA Warp 1.19.0 wants a driver"):
        usable_kernels("warp", [GPU], False)
    with pytest.raises(InputError, match="gpu 0: .*simulations want validation=bench"):
        usable_kernels("auto", [GPU], True)


def test_a_pytorch_that_cannot_use_the_gpu_is_refused(says):
    says(torch="PyTorch 2.13.0 (CUDA 13.0): The NVIDIA driver on your system is too old (found version 12040)")
    with pytest.raises(InputError, match="gpu 0: PyTorch 2.13.0.*too old.*gpus="):
        usable_kernels("auto", [GPU, CPU], False)


def test_good_gpus_and_no_gpus_change_nothing(says, monkeypatch):
    says()
    assert usable_kernels("auto", [GPU], True) == ("auto", "")
    monkeypatch.setattr(devices, "probe", lambda: pytest.fail("nothing is asked where no GPU is used"))
    assert usable_kernels("auto", [CPU, CPU], True) == ("auto", "")


def test_the_call_takes_what_the_probe_says_before_anything_is_written(says, monkeypatch, tmp_path):
    says(warp=OLD)
    monkeypatch.setattr(devices, "visible_gpus", lambda: ["0"])
    with pytest.raises(InputError, match="wants a driver for CUDA 13.0"):
        scale.run(quick_conf.load("gpus=[0]", "kernels=warp", "exp_name=x", output_root=tmp_path))
    assert not list(tmp_path.iterdir())


def test_several_workers_share_a_gpu_and_take_it_in_turn_with_the_others(monkeypatch):
    monkeypatch.setattr(devices, "visible_gpus", lambda: ["3", "GPU-b"])
    labels = [(one.label, one.visible) for one in devices.resolve_devices("auto", 2)]
    assert labels == [("gpu 0", "3"), ("gpu 1", "GPU-b")] * 2
    assert [one.label for one in devices.resolve_devices(["cpu", "0"], 3)] == ["cpu", "gpu 0", "gpu 0", "gpu 0"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_where_there_is_none_is_refused_with_the_reason_of_pytorch(tmp_path):
    with pytest.raises(InputError, match=r"sees no GPU \(PyTorch .*(built without CUDA|no GPU|NVIDIA driver)"):
        scale.run(quick_conf.load("gpus=[0]", "exp_name=x", output_root=tmp_path))


@pytest.mark.slow
def test_the_probe_asks_both_libraries_in_a_process_of_its_own():
    found = gpu_probe.probe()
    assert (found.torch == "") == torch.cuda.is_available()
    assert "ended with an error" not in found.torch + found.warp


def test_a_probe_that_falls_over_is_a_reason(monkeypatch):
    def falls(command, **_):
        raise subprocess.CalledProcessError(-11, command, stderr="lots\nof words\nSegmentation fault")

    monkeypatch.setattr(gpu_probe.subprocess, "run", falls)
    assert gpu_probe.probe().torch == "loading it ended with an error: Segmentation fault"


def test_what_libraries_print_before_the_answer_is_passed_over(monkeypatch):
    printed = "a banner\n" + json.dumps({"torch": "", "warp": "old"})
    monkeypatch.setattr(gpu_probe.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=printed))
    assert gpu_probe.probe() == GpuProbe("", "old")
