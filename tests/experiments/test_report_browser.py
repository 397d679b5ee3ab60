"""The report in a real browser, in a wide and a narrow window: all images load, and nothing overflows the page."""

import csv
import json
import re
import shutil
import subprocess

import pytest

from resnet_flax.reporting import report
from tests.experiments.folders import config, experiment, run

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)

# Headless Chromium has no window narrower than about 500 px, so the report is shown in a frame of the wanted width.
WRAPPER = """<!DOCTYPE html><title>wrapper</title>
<iframe id="frame" src="report.html" width="{width}" height="2000" style="border: 0"></iframe>
<pre id="measured"></pre>
<script>
window.addEventListener("load", () => {{
  const frame = document.getElementById("frame").contentWindow, page = frame.document;
  const images = [...page.images].map(i => [i.complete, i.naturalWidth, i.getBoundingClientRect().right]);
  const width = () => page.documentElement.scrollWidth;
  const closed = width();
  page.querySelectorAll("details").forEach(d => d.open = true);
  const first = [...page.querySelectorAll("td:first-child:not(.long, .unfolds)")];
  const boxes = [...page.querySelectorAll(".scroll")].filter(b => b.scrollWidth > b.clientWidth).length;
  document.getElementById("measured").textContent = JSON.stringify({{
    title: page.title, inner: frame.innerWidth, closed: closed, open: width(), images: images, scrolling: boxes,
    first: Math.max(...first.map(c => c.getBoundingClientRect().width)),
    details: page.querySelectorAll("details").length, size: parseFloat(frame.getComputedStyle(page.body).fontSize),
  }});
}});
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    root = tmp_path_factory.mktemp("browser") / "all"
    runs = [run(root / f"runs/{n}", config(n), 0.1) for n in ("plain-20", "residual-20")]
    folder = experiment(root / "curves", runs, notes=["word" * 100], command="python " + "--a-long-flag=x" * 40)
    with open(folder / "table.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [
                [f"a column {i}" for i in range(30)],
                ["plain-56 optimizer.weight_decay=0.005", *(f"{i / 7}" for i in range(29))],
            ]
        )
    run(root / ("a" * 100) / ("b" * 100), config("residual-14"))
    path, _ = report.write(root, root / "out")
    return path


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on the PATH")
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_fits_the_window(page, width, tmp_path):
    wrapper = page.with_name(f"wrapper{width}.html")
    wrapper.write_text(WRAPPER.format(width=width))
    switches = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--allow-file-access-from-files", f"--user-data-dir={tmp_path}/profile", "--window-size=1400,2200",
    ]  # fmt: skip
    done = subprocess.run(
        [BROWSER, *switches, "--dump-dom", wrapper.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    measured = re.search(r'<pre id="measured">(\{.*\})</pre>', done.stdout)
    assert measured, done.stdout[-2000:] + done.stderr[-2000:]
    found = json.loads(measured[1])
    assert found["title"] == "Report on all"
    assert found["inner"] == width
    assert len(found["images"]) == 1
    for complete, natural_width, right in found["images"]:
        assert complete
        assert natural_width > 0
        assert right <= width
    assert found["closed"] <= width
    assert found["details"] == 3  # the settings of each run
    assert found["open"] <= width  # also with everything unfolded
    assert found["scrolling"] >= 1  # Wide tables scroll in their own boxes.
    assert found["first"] < width / 2  # The fixed first column leaves room for the others.
    assert found["size"] >= 16  # px, which is legible on a phone
