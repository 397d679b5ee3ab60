"""A data set, an augmentation and metrics of one's own: README's config file runs as it stands there."""

import re

from tests.commands import ROOT, command, lines


def test_a_config_file_of_ones_own(tmp_path):
    (text,) = [
        b for b in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S) if "register(" in b
    ]
    file, run = tmp_path / "mine.py", tmp_path / "run"
    file.write_text(text)
    code, output = command("train.py", f"--config={file}", f"--workdir={run}")
    assert code == 0, output
    assert "2 classes (above, below); 48 + 12 images; tested on a fifth of its training images" in output
    last = lines(run)[-1]
    # Trained on negatives and tested on the images themselves: the network has learned it the wrong way round.
    assert last["train_error"] < 0.3
    assert last["test_error"] > 0.5
    assert last["train_margin"] > 0 < last["test_margin"]
    assert last["whole_norm"] > 0
    code, output = command("-m", "resnet_flax.evaluate", f"--workdir={run}", f"--config={file}")
    assert code == 0, output
    *_, margin, usual = output.splitlines()
    assert margin == f"test margin {last['test_margin']:.4f}"
    assert (
        usual
        == f"test error {last['test_error']:.2%} ({12 * last['test_error']:.0f} of 12), loss {last['test_loss']:.4f}"
    )
    code, output = command("-m", "resnet_flax.evaluate", f"--workdir={run}")
    assert code == 2
    assert "data.name='squares': looked for a prepared TFDS data set" in output.splitlines()[-1]
