"""Random damage to a run directory gives the same results or a message of one line; see tests/faults.py."""

import pytest

from tests.commands import command
from tests.marks import slow


@pytest.mark.parametrize(
    ("seed", "flips", "others"),
    [(100, 2, 2), *(slow(seed, 50, 25) for seed in range(4))],
)
def test_a_fault_never_changes_a_result(seed, flips, others, tmp_path):
    environment = {"XDG_CACHE_HOME": str(tmp_path)}
    arguments = (f"--seed={seed}", f"--flips={flips}", f"--others={others}")
    code, output = command("-m", "tests.faults", *arguments, environment=environment, timeout=540)
    assert code == 0, output
    assert output.splitlines()[-1].startswith(f"seed {seed}: {flips + others} faults: ")
