"""``predict`` reads weights in all common file formats with the same result, and refuses harmful and damaged files."""

import collections
import io
import json
import struct
import zipfile

import h5py
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from resnet_flax import config
from resnet_flax.errors import UserError
from resnet_flax.interchange import files, hdf5, names
from resnet_flax.networks import build
from tests.commands import streams
from tests.interchange import random_weights, torch_files
from tests.interchange.test_imagenet_weights import write_old_keras
from tests.interchange.torch_files import Call, Global, Raw, harmful, legacy_file, tar_file, zip_file
from tests.marks import slow

CIFAR = ("--config=configs/cifar10.py:residual-8", "--config.model.width=0.25", "--config.data.image_size=16")
IMAGENET = (
    "--config=configs/imagenet.py:residual-50", "--config.model.stage_units=(1,1)", "--config.model.width=0.125",
    "--config.data.image_size=32", "--config.data.resize=36",
)  # fmt: skip


def random_tensors(path, name, layout, classes=10, **keys):
    c = config.load(path, name)
    c.model.update(keys)
    found = {}
    for entry in names.entries(build(c.model, classes), (32, 32, 3), layout):
        found[entry.name] = random_weights.tensor(entry.name, entry.shape)
        if entry.absorbed:
            found[entry.absorbed] = random_weights.tensor(entry.absorbed, entry.shape)
    return found


@pytest.fixture(scope="module")
def tensors():
    return random_tensors("configs/cifar10.py", "residual-8", "cifar", width=0.25)


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)).save(path)
    return path


def predict(path, photo, arguments=CIFAR):
    """Runs ``predict``; returns its exit code, the classes with their probabilities, and stderr."""
    code, out, error = streams("-m", "resnet_flax.predict", f"--weights={path}", "--json", *arguments, str(photo))
    assert "Traceback" not in error, error
    return code, json.loads(out)["top"] if out else None, error


@pytest.fixture(scope="module")
def expected(tensors, photo, tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "plain.safetensors"
    save_file(tensors, path)
    code, found, error = predict(path, photo)
    assert code == 0, error
    return found


def safetensors(tensors):
    from safetensors.numpy import save

    return save(tensors)


def prefixed(tensors, prefix):
    return {prefix + name: tensor for name, tensor in tensors.items()}


TRAINER = {
    "epoch": 3,
    "args": Call("argparse.Namespace", state={"lr": 0.1}),
    "scheduler": {"milestones": Call("collections.Counter", {30: 1}), "last": 0.5},
    "best": Call("numpy._core.multiarray.scalar", Call("numpy.dtype", "f8", False, True), b"\0" * 8),
    "state": Call("collections.defaultdict", Global("builtins.dict")),
    "device": Call("torch.device", "cpu"),
    "random": (3, tuple(range(625)), None),
}

# The file's name, a function from tensors to its content, and the message on stderr.
FORMS = {
    "zip": ("w.pth", zip_file, ""),
    "legacy": ("w.th", legacy_file, ""),
    "tar of PyTorch 0.1": ("resnet18-5c106cde.pth", tar_file, ""),
    "the first tar": ("w.pth", lambda t: tar_file(t, late=True), ""),
    "a trainer's checkpoint": ("w.pth", lambda t: zip_file(TRAINER | {"state_dict": t}), ""),
    "a trainer's old checkpoint": ("w.pth.tar", lambda t: legacy_file(TRAINER | {"state_dict": t}), ""),
    "bin": ("pytorch_model.bin", zip_file, ""),
    "lightning": ("last.ckpt", lambda t: zip_file({"state_dict": prefixed(t, "model.")}), "all names without model."),
    "safetensors named pth": ("w.pth", safetensors, "a safetensors file by its content"),
    "zip named safetensors": ("w.safetensors", zip_file, "a PyTorch file by its content"),
    "compiled": ("w.pth", lambda t: zip_file(prefixed(t, "module._orig_mod.")), "all names without module._orig_mod."),
    "backbone": ("w.pth", lambda t: legacy_file({"net": prefixed(t, "backbone.")}), "its net is taken; all names wit"),
    "teacher": ("w.pth", lambda t: zip_file({"teacher": prefixed(t, "encoder.")}), "its teacher is taken; all names"),
    "module": ("w.pth", lambda t: zip_file({"module": prefixed(t, "net."), "dp": 8}), "its module is taken; all name"),
    "only an average": ("w.pth", lambda t: zip_file({"model_ema": prefixed(t, "module.") | {"n_averaged": np.ones(1)}}),
                        "its model_ema is taken"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_each_format_gives_the_predictions_of_the_plain_file(form, tensors, photo, expected, tmp_path):
    name, content, said = FORMS[form]
    (tmp_path / name).write_bytes(content(tensors))
    code, found, error = predict(tmp_path / name, photo)
    assert code == 0, error
    assert found == expected
    assert said in error


def test_training_starts_from_a_part_of_a_checkpoint(torchvision, tmp_path):
    """The run starts from the average, and a program in place of a tensor is refused."""
    tensors, _ = torchvision
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (40, 40), (90 * i, 60, 200)).save(tmp_path / "photos" / name / f"{i}.png")
    other = {name: tensor * np.float32(np.nan) for name, tensor in tensors.items()}
    path = tmp_path / "w.pth.tar"
    path.write_bytes(legacy_file(TRAINER | {"state_dict": other, "state_dict_ema": tensors}))
    arguments = (
        "--config=configs/folder.py:residual-50", *IMAGENET[1:], f"--config.data.folder={tmp_path / 'photos'}",
        "--config.train.steps=1", "--config.train.batch_size=4", "--reset-head",
    )  # fmt: skip
    for part, expected in (("#state_dict_ema", 0), ("", 2)):  # the parameters are not finite
        code, _, error = streams(
            "train.py", *arguments, f"--config.init.weights={path}{part}", f"--workdir={tmp_path / f'run{part[1:]}'}"
        )
        assert code == expected, error
        assert ("its state_dict_ema is taken" in error) == (not expected)
    path.write_bytes(zip_file(tensors | {"conv1.weight": Raw(harmful(tmp_path / "made")["REDUCE"])}))
    code, _, error = streams("train.py", *arguments, f"--config.init.weights={path}", f"--workdir={tmp_path / 'no'}")
    assert code == 2, error
    assert "missing: conv1.weight (it is os.mkdir)" in error.splitlines()[-1]
    assert not (tmp_path / "made").exists()


def test_the_average_beside_the_parameters_can_be_chosen(tensors, photo, expected, tmp_path):
    other = {name: tensor * np.float32(0.5) for name, tensor in tensors.items()}
    path = tmp_path / "w.pth"
    path.write_bytes(zip_file({"state_dict": other, "state_dict_ema": tensors}))
    code, found, error = predict(path, photo)
    assert code == 0, error
    assert "its state_dict is taken (the other: w.pth#state_dict_ema)" in error
    assert found != expected
    code, found, error = predict(f"{path}#state_dict_ema", photo)
    assert code == 0, error
    assert found == expected
    code, _, error = predict(f"{path}#average", photo)
    assert (code, error.splitlines()[-1]) == (
        2, f"error: {path}: has no part 'average'; it has: state_dict, state_dict_ema"
    )  # fmt: skip


NOT_READ = {
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 46830571\n", "pointer of Git LFS"),
    "a page": (b"\n<!DOCTYPE html><html><title>Sign in</title>", "a web page (HTML)"),
    "nothing": (b"", "it is empty"),
    "gzip": (b"\x1f\x8b\x08\0", "compressed by gzip"),
    "text": (b"hello there", "no file of weights"),
    "a module": (zip_file({"model": Call("models.resnet.ResNet", state={"training": True})}),
                 "its model is no state dict but models.resnet.ResNet, which only code could create"),
    "TorchScript": (zip_file({}, [("archive/constants.pkl", b"")]), "a TorchScript file, which is a program"),
    "zip in a zip": (lambda t: zipped("w.pth", zip_file(t)), "a zip of w.pth; unpack it"),
    "float8": (lambda t: safetensors_of(t, "F8_E4M3"), "conv1.weight (it is of type F8_E4M3)"),
    "a config of 5": (lambda t: with_metadata(t, {"resnet_flax.config": "5"}), "w.safetensors: resnet_flax.config in"),
    "a deep config": (lambda t: with_metadata(t, {"resnet_flax.config": '{"model":' * 5000 + "1" + "}" * 5000}), "w.s"),
    "deep metadata": (lambda t: raw_header(b'{"__metadata__":{"a":' + b"[" * 90000 + b"]" * 90000 + b"}}"), "w.sa"),
}  # fmt: skip


METADATA = ("float8", "a config of 5", "a deep config", "deep metadata")


def zipped(name, content, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr(name, content)
    return file.getvalue()


def raw_header(header, body=b""):
    return struct.pack("<Q", len(header)) + header + body


def safetensors_of(tensors, kind):
    first = tensors["conv1.weight"]
    header = {"conv1.weight": {"dtype": kind, "shape": list(first.shape), "data_offsets": [0, first.size]}}
    return raw_header(json.dumps(header).encode(), bytes(first.size))


def with_metadata(tensors, metadata):
    from safetensors.numpy import save

    return save(tensors, metadata)


@pytest.mark.parametrize("case", NOT_READ)
def test_a_file_that_is_not_read_is_described_in_one_line(case, tensors, photo, tmp_path):
    content, message = NOT_READ[case]
    path = tmp_path / ("w.safetensors" if case in METADATA else "w.pth")
    path.write_bytes(content(tensors) if callable(content) else content)
    code, _, error = predict(path, photo)
    assert code == 2, error
    assert message in error.splitlines()[-1]
    assert str(path) in error.splitlines()[-1]


@pytest.mark.parametrize("form", [zip_file, legacy_file, tar_file])
def test_code_beside_the_weights_is_not_run(form, tensors, photo, expected, tmp_path):
    """The optimizer's state holds all programs at once. Only the state dict is read."""
    harm = {name: Raw(program) for name, program in harmful(tmp_path / "made").items()}
    if form is tar_file:
        harm.pop("persistent id")
    (tmp_path / "w.pth").write_bytes(form({"optimizer": {"state": harm}, "state_dict": tensors}))
    code, found, error = predict(tmp_path / "w.pth", photo)
    assert code == 0, error
    assert found == expected
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("instruction", harmful("made"))
def test_code_in_place_of_the_weights_is_refused(instruction, tensors, photo, tmp_path):
    program = Raw(harmful(tmp_path / "made")[instruction])
    for form in (zip_file, tar_file):
        (tmp_path / "w.pth").write_bytes(form(tensors | {"conv1.weight": program}))
        code, _, error = predict(tmp_path / "w.pth", photo)
        assert code == 2, error
        assert "missing: conv1.weight (it is " in error.splitlines()[-1]
        assert not (tmp_path / "made").exists()


def test_a_load_does_not_affect_a_later_one(tensors, photo, expected, tmp_path):
    """A file that changes a class with BUILD does not affect a good file that the same process reads later."""
    from resnet_flax.interchange import files

    build_on = b"ctorch\nFloatStorage\n}X\x04\x00\x00\x00nameX\x0a\x00\x00\x00IntStoragesb"
    bad, good = tmp_path / "bad.pth", tmp_path / "good.pth"
    bad.write_bytes(zip_file({"x": Raw(build_on), "state_dict": tensors}))
    good.write_bytes(zip_file(tensors))
    files.read(bad)
    found = files.read(good).tensors
    assert found["conv1.weight"].dtype == np.float32
    np.testing.assert_array_equal(found["conv1.weight"], tensors["conv1.weight"])


def tensor(key, count, size, stride, offset=0):
    return Call("torch._utils._rebuild_tensor_v2", Stored(key, count), offset, size, stride, False,
                Call("collections.OrderedDict"))  # fmt: skip


class Stored:
    def __init__(self, key, count):
        self.key, self.count = key, count


def raw_zip(value, data, compression=zipfile.ZIP_STORED):
    def persistent(v):
        return ("storage", Global("torch.FloatStorage"), v.key, "cpu", v.count) if isinstance(v, Stored) else None

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("archive/data.pkl", torch_files.dumps(value, persistent))
        for key, content in data.items():
            archive.writestr(f"archive/data/{key}", content)
    return file.getvalue()


BOMBS = {
    "a huge memo index": lambda: zipped("archive/data.pkl", b"\x80\x02}r\xff\xff\xff\x1f."),
    "compressed zeros": lambda: raw_zip(
        {"conv1.weight": tensor("0", 2**28, (2**28,), (1,))}, {"0": bytes(2**30)}, zipfile.ZIP_DEFLATED),
    "stride 0": lambda: raw_zip({"conv1.weight": tensor("0", 1, (2**16, 2**16), (0, 0))}, {"0": bytes(4)}),
    "a text of any length": lambda: zipped("archive/data.pkl", b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"a."),
    "bytes of any length": lambda: zipped("archive/data.pkl", b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"a."),
    "copies of copies": lambda: zipped("archive/data.pkl", copies()),
    "beyond its storage": lambda: raw_zip({"conv1.weight": tensor("0", 2, (3,), (1,))}, {"0": bytes(8)}),
    "another length": lambda: raw_zip({"conv1.weight": tensor("0", 2**40, (3,), (1,))}, {"0": bytes(8)}),
    "tuples in tuples as a key": lambda: zipped("archive/data.pkl", b"\x80\x02})" + b"\x85" * 10**6 + b"Ns."),
}  # fmt: skip


def copies():
    """A pickle of a list of 100,000 pairs that makes 100,000 dicts of the list."""
    pairs = b"](" + b"K\x01K\x02\x86" * 100_000 + b"e"
    return b"\x80\x02ccollections\nOrderedDict\nq\x00" + pairs + b"q\x01\x85q\x02](" + b"h\x00h\x02R" * 100_000 + b"e."


LONG = (
    "another length",
    "copies of copies",
    "bytes of any length",
    "a text of any length",
    "tuples in tuples as a key",
    "beyond its storage",
    "compressed zeros",
    "a huge memo index",
)  # slow, because they resemble the others


@pytest.mark.parametrize("bomb", [slow(b) if b in LONG else b for b in BOMBS])
def test_a_file_takes_no_more_memory_than_its_network_needs(bomb, photo, tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(BOMBS[bomb]())
    assert_small(path, photo)


LIMITED = """
import resource, sys
from pathlib import Path
from resnet_flax import config, model
from resnet_flax.errors import UserError
now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + {room}, -1))
c = config.load("configs/cifar10.py", "residual-8")
try:
    model.from_weights(sys.argv[1], config.load(*sys.argv[2:4]))
except UserError as error:
    sys.exit(f"refused: {{error}}")
"""


def assert_small(path, photo, room=2**29, name=("configs/cifar10.py", "residual-8")):
    """Checks that a file is refused in one line, within ``room`` bytes more than the program takes without it."""
    code, _, error = streams("-c", LIMITED.format(room=room), str(path), *name)
    assert code == 1, error
    assert error.splitlines()[-1].startswith("refused: "), error
    assert "MemoryError" not in error


def test_hdf5_reads_no_other_file(photo, tmp_path):
    """Raw storage in another file, a link or virtual data set into one, and too large a data set are refused."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"root:x:0:0:root:/root:/bin/bash\n" * 300)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["kernel:0"] = np.zeros((7, 7, 3, 8), np.float32)
    shape = (7, 7, 3, 8)
    layout = h5py.VirtualLayout(shape, "f4")
    layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "kernel:0", shape)
    makers = {
        "kept in another file": lambda g: g.create_dataset(
            "kernel:0", shape, "f4", external=[(str(secret), 0, h5py.h5f.UNLIMITED)]),
        "a link to another place": lambda g: g.__setitem__("kernel:0", h5py.ExternalLink("other.h5", "kernel:0")),
        "is kept in another": lambda g: g.create_virtual_dataset("kernel:0", layout),
        "for which the file is too short": lambda g: g.create_dataset("kernel:0", (40000, 100000), "f4"),
        "in chunks": lambda g: g.create_dataset("kernel:0", (40000, 100000), "f4", chunks=(1000, 1000)),
    }  # fmt: skip
    for message, make in makers.items():
        path = tmp_path / "w.h5"
        with h5py.File(path, "w") as file:
            file.attrs["layer_names"] = [b"conv1_conv"]
            group = file.create_group("conv1_conv")
            group.attrs["weight_names"] = [b"kernel:0"]
            make(group)
        code, _, error = predict(path, photo, IMAGENET)
        assert code == 2, error
        assert message in error.splitlines()[-1]


def test_an_endless_hdf5_file_is_refused_after_a_time_limit(tmp_path, monkeypatch):
    """A wrong length of a name makes the HDF5 library advance by zero bytes for ever."""
    written = io.BytesIO()
    keras_3({"conv1_conv/kernel": np.ones((3, 3, 3, 4), np.float32)}, written)
    good = written.getvalue()
    length = len(b"conv1_conv").to_bytes(8, "little")
    path = tmp_path / "w.weights.h5"
    path.write_bytes(good)
    assert files.read(path, "--weights").tensors["conv1_conv/kernel"].shape == (3, 3, 3, 4)
    path.write_bytes(good.replace(length + b"conv1_conv", (255).to_bytes(8, "little") + b"conv1_conv"))
    monkeypatch.setattr(hdf5, "_SECONDS", 1)
    with pytest.raises(UserError, match=r"w\.weights\.h5: not a readable file .* did not finish within 1 s"):
        files.read(path, "--weights")


@pytest.fixture(scope="module")
def torchvision(photo, tmp_path_factory):
    found = random_tensors("configs/imagenet.py", "residual-50", "imagenet", stage_units=(1, 1), width=0.125)
    path = tmp_path_factory.mktemp("torchvision") / "plain.safetensors"
    save_file(found, path)
    code, classes, error = predict(path, photo, IMAGENET)
    assert code == 0, error
    return found, classes


def hugging_face(name):
    """Converts a name of torchvision's to transformers' ResNetForImageClassification, following that library's code."""
    layer, _, leaf = name.rpartition(".")
    parts = layer.split(".")
    if parts[0] in ("conv1", "bn1"):
        return f"resnet.embedder.embedder.{'convolution' if parts[0] == 'conv1' else 'normalization'}.{leaf}"
    if parts[0] == "fc":
        return f"classifier.1.{leaf}"
    stage, unit = int(parts[0][-1]) - 1, parts[1]
    where = f"resnet.encoder.stages.{stage}.layers.{unit}"
    if parts[2] == "downsample":
        return f"{where}.shortcut.{('convolution', 'normalization')[int(parts[3])]}.{leaf}"
    kind = "convolution" if parts[2].startswith("conv") else "normalization"
    return f"{where}.layer.{int(parts[2][-1]) - 1}.{kind}.{leaf}"


def test_hugging_faces_names_are_read(torchvision, photo, tmp_path):
    tensors, expected = torchvision
    save_file({hugging_face(name): tensor for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    code, found, error = predict(
        tmp_path / "model.safetensors", photo, (*IMAGENET, "--config.data.interpolation=bilinear")
    )
    assert code == 0, error
    assert found == expected
    assert "in Hugging Face's layout" in error


def keras_3(tensors, file):
    """Writes a model inside a Sequential as Keras 3 saves it."""
    with h5py.File(file, "w") as h5:
        h5.create_group("layers/input_layer/vars")
        for i, layer in enumerate(dict.fromkeys(name.partition("/")[0] for name in tensors)):
            where = "layers/dense" if layer == "my_head" else f"layers/functional/layers/layer_{i}"
            place = h5.create_group(f"{where}/vars")
            place.attrs["name"] = layer
            for j, name in enumerate(name for name in tensors if name.startswith(f"{layer}/")):
                place[str(j)] = tensors[name]


def nested_old(tensors, path):
    """Writes a model inside another one as Keras 2 saved it."""
    with h5py.File(path, "w") as h5:
        h5.attrs["layer_names"] = [b"resnet50", b"my_head"]
        for group, mine in {
            "resnet50": [n for n in tensors if not n.startswith("my_head/")],
            "my_head": [n for n in tensors if n.startswith("my_head/")],
        }.items():
            place = h5.create_group(group)
            place.attrs["weight_names"] = [f"{name}:0".encode() for name in mine]
            for name in mine:
                place[f"{name}:0"] = tensors[name]


def test_nested_keras_models_are_read(photo, tmp_path):
    """A model in a Sequential, with a head of another name, gives the plain file's result in all three formats."""
    from resnet_flax.interchange.weight_layouts import LAYOUTS

    order = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")
    found = random_tensors("configs/imagenet.py", "residual-50", LAYOUTS["keras"], stage_units=(1, 1), width=0.125)
    tensors = dict(sorted(found.items(), key=lambda kv: order.index(kv[0].rpartition("/")[2])))
    write_old_keras(tmp_path / "plain.h5", tensors)
    code, expected, error = predict(tmp_path / "plain.h5", photo, IMAGENET)
    assert code == 0, error
    renamed = {name.replace("predictions/", "my_head/"): tensor for name, tensor in tensors.items()}
    nested_old(renamed, tmp_path / "nested.h5")
    content = io.BytesIO()
    keras_3(renamed, content)
    (tmp_path / "nested.weights.h5").write_bytes(content.getvalue())
    (tmp_path / "model.keras").write_bytes(zipped("model.weights.h5", content.getvalue()))
    for name in ("nested.h5", "nested.weights.h5", "model.keras"):
        code, classes, error = predict(tmp_path / name, photo, IMAGENET)
        assert code == 0, error
        assert classes == expected
        assert "its dense layer my_head is the last one" in error


@pytest.mark.parametrize("form", ["zip", "legacy", "checkpoint", "script", "module"])
def test_files_that_pytorch_writes_are_read(form, tensors, photo, expected, tmp_path):
    torch = pytest.importorskip("torch")
    import argparse

    state = collections.OrderedDict((name, torch.tensor(t)) for name, t in tensors.items())
    path = tmp_path / "w.pth"
    if form in ("script", "module"):
        module = torch.nn.Linear(2, 2)
        if form == "script":
            with pytest.warns(DeprecationWarning, match="torch.jit"):
                torch.jit.script(module).save(str(path))
        else:
            torch.save({"state_dict": module}, path)
        code, _, error = predict(path, photo)
        assert code == 2, error
        assert ("a TorchScript file" if form == "script" else "no state dict but torch.nn.modules.linear.Li") in error
        return
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(3))], 0.1)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [30, 60])
    checkpoint = {
        "args": argparse.Namespace(lr=0.1), "state_dict": state, "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(), "best": np.float64(0.3), "seen": collections.defaultdict(list),
        "device": torch.device("cpu"), "random": torch.get_rng_state(), "numpy": np.random.RandomState(0).get_state(),
    }  # fmt: skip
    torch.save(checkpoint if form == "checkpoint" else state, path, _use_new_zipfile_serialization=form != "legacy")
    code, found, error = predict(path, photo)
    assert code == 0, error
    assert found == expected
