"""PyTorch's files are read without PyTorch like by torch.load, and malicious files are refused."""

import collections
import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from resnet_flax.errors import UserError
from resnet_flax.interchange import files, pickles

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class Harm:
    """An object whose pickle creates a folder when Python unpickles it."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def legacy(*objects, tail=b""):
    file = io.BytesIO()
    for value in (MAGIC, PROTOCOL, {"little_endian": True}, *objects):
        pickle.dump(value, file, protocol=2)
    return file.getvalue() + tail


def zipped(data):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", data)
    return file.getvalue()


@pytest.mark.parametrize("form", ["legacy", "zip", "first"])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, form):
    made = tmp_path / "made by the pickle"
    harm = {"state_dict": Harm(made)}
    contents = {
        "legacy": lambda: legacy(harm, []),
        "zip": lambda: zipped(pickle.dumps(harm, protocol=2)),
        "first": lambda: pickle.dumps(Harm(made), protocol=2),  # in place of the magic number
    }[form]()
    path = tmp_path / "weights.pth"
    path.write_bytes(contents)
    pickle.loads(pickle.dumps(Harm(tmp_path / "it works")))
    assert (tmp_path / "it works").is_dir()  # the harm is real
    with pytest.raises(UserError, match=r"is no state dict but \w+\.mkdir, .* no code is run|torch\.save"):
        files.read(path)
    assert not made.exists()


@pytest.mark.parametrize(
    "name", ["eval", "exec", "getattr", "__import__", "open"],
)  # fmt: skip
def test_builtins_are_refused(tmp_path, name):
    path = tmp_path / "weights.th"
    path.write_bytes(zipped(b"c__builtin__\n" + name.encode() + b"\n."))
    with pytest.raises(UserError, match=f"it is no state dict but __builtin__.{name}"):
        files.read(path)


@pytest.mark.parametrize(
    "contents",
    [b"", b"\x80\x02", b"hello", legacy(), legacy({"a": 1}), legacy({"a": 1}, ["0"]), zipped(b""), b"PK\x03\x04 no"],
    ids=range(8),
)
def test_other_files_are_refused_in_one_line(tmp_path, contents):
    path = tmp_path / "weights.pth"
    path.write_bytes(contents)
    with pytest.raises(UserError, match=r"weights\.pth: not a file that torch\.save wrote, or a damaged one"):
        pickles.read(path)


def test_a_legacy_file_written_opcode_by_opcode_is_read(tmp_path):
    """A 2x3 tensor that begins at the second number of its storage, in the instructions of an old PyTorch."""

    class Pickler(pickle._Pickler):
        def persistent_id(self, value):
            return value if isinstance(value, tuple) and value[:1] == ("storage",) else None

        def save_global(self, value, name=None):
            self.write(b"c" + value.encode().replace(b".", b"\n") + b"\n")

    file = io.BytesIO()
    for value in (MAGIC, PROTOCOL, {}):
        pickle.dump(value, file, protocol=2)
    file.write(
        b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
        b"X\x01\x00\x00\x007X\x03\x00\x00\x00cpuK\x07NtQK\x01K\x02K\x03\x86K\x03K\x01\x86tRs."
    )
    pickle.dump(["7"], file, protocol=2)
    file.write(struct.pack("<q", 7) + np.arange(7, dtype="<f4").tobytes())
    path = tmp_path / "old.th"
    path.write_bytes(file.getvalue())
    assert pickles.read(path)["w"].tolist() == [[1, 2, 3], [4, 5, 6]]

    path.write_bytes(file.getvalue()[:-1])
    with pytest.raises(UserError, match="ends early"):
        pickles.read(path)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_files_of_torch_save_are_read(tmp_path, new):
    torch = pytest.importorskip("torch")
    base = torch.arange(24.0).reshape(4, 6)
    saved = {
        "whole": base, "a view": base[1:, ::2], "transposed": base.T, "scalar": torch.tensor(3.5), "none": base[:0],
        "double": base.double(), "half": base.half(), "bfloat16": base.bfloat16(), "integers": torch.arange(5),
        "flags": torch.tensor([True, False]), "parameter": torch.nn.Parameter(base + 1), "number": 0.0827,
        "nested": collections.OrderedDict(inner=[base, "text", None]),
    }  # fmt: skip
    path = tmp_path / "saved.pt"
    torch.save(saved, path, _use_new_zipfile_serialization=new)
    found = pickles.read(path)
    assert found.keys() == saved.keys()
    for name, value in saved.items():
        if isinstance(value, torch.Tensor):
            expected = value.detach().float() if name == "bfloat16" else value.detach()
            assert found[name].dtype == ("bfloat16" if name == "bfloat16" else expected.numpy().dtype)
            np.testing.assert_array_equal(found[name], expected.numpy(), err_msg=name)
    assert found["number"] == 0.0827
    np.testing.assert_array_equal(found["nested"]["inner"][0], base.numpy())
    assert found["nested"]["inner"][1:] == ["text", None]
