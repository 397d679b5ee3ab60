"""Lines that a crash cut short are left out, and what is added later is whole."""

import json

from hypothesis import given
from hypothesis import strategies as st

from resnet_flax import json_lines
from resnet_flax.run_files import RunFiles

LINES = [{"step": 1, "text": "a\nb"}, {"step": 22}, {"step": 333}]


@given(cut=st.integers(0, sum(len(json.dumps(line)) + 1 for line in LINES)))
def test_cut_anywhere(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("cut") / "starts.jsonl"
    for line in LINES:
        json_lines.append(path, line)
    content = path.read_bytes()
    assert content.decode() == "".join(json.dumps(line) + "\n" for line in LINES)
    path.write_bytes(content[:cut])
    ends = [len("".join(json.dumps(line) + "\n" for line in LINES[: i + 1])) for i in range(3)]
    whole = [line for line, end in zip(LINES, ends, strict=True) if end - 1 <= cut]  # its line break may be missing
    files = RunFiles(path.parent)
    assert files.starts() == whole
    json_lines.append(path, {"step": 4})
    assert files.starts() == [*whole, {"step": 4}]


def test_no_file(tmp_path):
    assert RunFiles(tmp_path).starts() == []
