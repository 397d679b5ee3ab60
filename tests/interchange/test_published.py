"""``predict`` takes the image size from the names of published files, and refuses networks with other filters."""

import json

import pytest
from safetensors.numpy import save_file

from tests.interchange.test_file_formats import IMAGENET, photo, predict, random_tensors  # noqa: F401 (a fixture)

NETWORK = IMAGENET[:3]
SIZES = {
    "resnet50-11ad3fa6.pth": "224 pixels out of 232, bilinear (as its name tells)",
    "resnet50_a1_0-14fe96d1.pth": "224 pixels out of 235, bicubic (as its name tells)",
    "resnet50.a1_in1k/model.safetensors": "224 pixels out of 235, bicubic (as its name tells)",
    "models--timm--resnet50.tv2_in1k/snapshots/0/model.safetensors": "out of 232, bilinear (as its name tells)",
    "resnet50_a1h2_176-001a1197.pth": "224 pixels out of 224, bicubic (as its name tells)",
    "resnet50-0676ba61.pth": "out of 256, bilinear (its name does not tell at which size it was evaluated)",
}


@pytest.fixture(scope="module")
def tensors():
    return random_tensors("configs/imagenet.py", "residual-50", "imagenet", stage_units=(1, 1), width=0.125)


@pytest.mark.parametrize("name", SIZES)
def test_the_image_size_follows_from_the_name_and_is_printed(name, tensors, photo, tmp_path):  # noqa: F811
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    code, _, error = predict(path, photo, NETWORK)
    assert code == 0, error
    assert SIZES[name] in error


def test_the_users_size_precedes_timms_config_and_the_name(tensors, photo, tmp_path):  # noqa: F811
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    settings = {"input_size": [3, 288, 288], "crop_pct": 1.0, "interpolation": "bicubic"}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet50", "pretrained_cfg": settings}))
    code, _, error = predict(path, photo, NETWORK)
    assert code == 0, error
    assert "images of 288 pixels out of 288, bicubic (as config.json beside it tells)" in error
    code, _, error = predict(path, photo, (*NETWORK, "--config.data.image_size=224", "--config.data.resize=256"))
    assert code == 0, error
    assert "images of 224 pixels out of 256, bicubic" in error


@pytest.mark.parametrize("name", ["resnetblur50_a1-84f4748f.pth", "resnetaa50d.sw_in12k/model.safetensors", "w.pth"])
def test_networks_with_other_filters_are_refused(name, tensors, photo, tmp_path):  # noqa: F811
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    save_file(tensors, path)
    if name == "w.pth":
        (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnetaa50"}))
    code, _, error = predict(path, photo, NETWORK)
    assert code == 2, error
    assert "which has the names of a ResNet and filters between its layers" in error.splitlines()[-1]
