"""Tests of figures as matplotlib draws them: layout, styles that differ in grey, marks of failures and gaps."""

import itertools
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from resnet_flax import config as configs
from resnet_flax.errors import UserError
from resnet_flax.figures import curves, final_errors, layer_norms, paper, propagation, style
from resnet_flax.reporting import protocol, words
from resnet_flax.reporting.propagation import Measured
from resnet_flax.sweeps.cases import Outcome, PlannedRun, label_of

DEPTHS = (8, 14, 20, 26, 32, 44, 56)


def outcome(depth=20, seed=0, test=0.03, failure="", steps=4, label="", **keys):
    """Returns the outcome of a run with four lines, or two if it failed, whose errors fall to ``test``."""
    c = configs.base()
    overrides = {key.replace("__", "."): value for key, value in keys.items()}
    c.update_from_flattened_dict({"data.name": "digits", "model.unit": "plain", "model.depth": depth, **overrides})
    c.seed, c.train.batch_size, c.train.steps = seed, 32, 900
    lines = [
        {"step": 225 * i, "epoch": 225 * i * 32 / 1442, "seconds": 1.0, "train_error": test * (5 - i) / 2,
         "test_error": test * (5 - i)}
        for i in range(1, steps + 1)
    ]  # fmt: skip
    planned = PlannedRun(c, Path("nowhere"), label or label_of(f"plain-{depth}", overrides))
    return Outcome(planned, lines[: 2 if failure else 4], 1, 10, failure)


def sweep(seeds=3):
    """Returns a sweep of seven depths and five weight decays.

    All seeds of 56 layers diverge at 0.001, and one seed of 20 layers at 0.01.
    """
    decays = (0.0, 1e-5, 1e-4, 1e-3, 1e-2)
    return [
        outcome(
            depth, seed, test=0.02 + 0.002 * seed + (0.6 if depth > 40 else 0), optimizer__weight_decay=decay,
            failure="diverged" if (depth, decay) == (56, 1e-3) or (depth, decay, seed) == (20, 1e-2, 1) else "",
        )
        for depth, decay, seed in itertools.product(DEPTHS, decays, range(seeds))
    ]  # fmt: skip


def layers(o):
    return f"{o.run.config.model.depth} layers"


@pytest.fixture
def drawn(monkeypatch):
    """A list of the saved figures, after they were drawn."""
    found = []

    def keep(figure, path):
        figure.draw_without_rendering()
        found.append(figure)

    monkeypatch.setattr(style, "save", keep)
    return found


def sticks_out(figure):
    """Returns how far drawn things stick out of the figure at its worst edge, in inches."""
    box, (width, height) = figure.get_tightbbox(figure.canvas.get_renderer()), figure.get_size_inches()
    return max(-box.x0, -box.y0, box.x1 - width, box.y1 - height)


def legend_of(figure):
    [legend] = figure.legends
    return [text.get_text() for text in legend.get_texts()]


FIGURES = {
    "against": lambda path: final_errors.against(
        sweep(), path, "Does weight decay matter more for deeper plain nets?", "optimizer.weight_decay", layers,
        log=True,
    ),
    "against depth": lambda path: final_errors.against_depth(
        [outcome(d, test=e, model__unit=u) for d in DEPTHS for u, e in (("plain", 0.5), ("residual", 0.02))],
        path, "digits: error against depth",
    ),
    "curves": lambda path: curves.draw(sweep(), path, "curves", panel=lambda o: "plain networks " * 4),
    "many curves": lambda path: curves.draw(
        sweep(), path, "title " * 30, line=lambda o: f"a line with a long name, {o.run.label}"
    ),
    "side by side": lambda path: final_errors.side_by_side(sweep(), path, "digits: depth and weight decay"),
}  # fmt: skip


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """Each of these figures as it is saved, by its name."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        for name, draw in FIGURES.items():
            patch.setattr(style, "save", lambda figure, path, name=name: found.update({name: figure}))
            draw(tmp_path_factory.mktemp("figures") / "figure.png")
            found[name].draw_without_rendering()
    return found


@pytest.mark.parametrize("name", FIGURES)
def test_everything_lies_within_the_figure(name, figures):
    figure = figures[name]
    assert sticks_out(figure) < 0.01
    assert figure.get_figwidth() <= 7  # On a page of 400 pixels, 10 points are at least 8 pixels.
    labels = {label for ax in figure.axes for label in ax.get_legend_handles_labels()[1]}
    assert len(legend_of(figure)) == len(labels) >= 2
    assert not any("_" in text or "=" in text for text in legend_of(figure))
    for ax in figure.axes:  # No panel lies under its neighbour.
        others = [other for other in figure.axes if other is not ax]
        assert not any(ax.get_window_extent().overlaps(other.get_window_extent()) for other in others)


@pytest.mark.parametrize("name", ["against", "curves"])
def test_the_left_panel_has_training_errors_and_the_right_one_test_errors(name, figures):
    """The errors of training are half of those of testing here."""
    left, right = ({line.get_label(): line.get_ydata() for line in ax.lines} for ax in figures[name].axes[:2])
    assert len(left) == len(right) > 1
    for label in left.keys() - {"chance"}:
        if np.size(left[label]) > 2:
            np.testing.assert_allclose(2 * np.asarray(left[label]), right[label])


@pytest.mark.parametrize("count", range(1, 13))
def test_lines_differ_in_colour_marker_and_dashes_and_in_grey(count):
    line_styles = list(style.line_styles(map(str, range(count))).values())
    assert len({look["color"] for look in line_styles}) == count
    assert len({(look["marker"], str(look["linestyle"])) for look in line_styles}) == min(count, 8)
    pixels = Image.new("RGB", (count, 1))
    pixels.putdata([tuple(round(255 * v) for v in to_rgb(look["color"])) for look in line_styles])
    grey = np.array(pixels.convert("L"), int)[0]
    assert np.all(grey <= 190)  # dark enough on white paper
    if count <= 7:
        assert np.all(np.diff(grey) <= -20)
    else:  # those of a panel, half of the names, still differ
        assert np.all(np.diff(grey[: count // 2]) <= -15)


def test_no_two_lines_of_a_panel_look_alike(figures):
    for ax in (ax for figure in figures.values() for ax in figure.axes):
        lines = {line.get_label(): line for line in ax.get_legend_handles_labels()[0] if len(line.get_xdata())}
        colours = [line.get_color() for line in lines.values()]
        assert len(set(colours)) == len(colours)


def test_points_of_equal_value_lie_side_by_side_and_in_order(figures):
    axes = figures["against"].axes[1]
    lines = [line for line in axes.lines if line.get_label() in {f"{d} layers" for d in DEPTHS}]
    places = np.array([line.get_transform().transform(line.get_xydata())[:, 0] for line in lines])  # [lines, values]
    assert np.nanmin(np.diff(places, axis=0)) > 0.5
    assert np.all(np.nanmax(places[:, :-1], 0) < np.nanmin(places[:, 1:], 0))
    assert all(list(line.get_xdata()) == [0, 1e-5, 1e-4, 1e-3, 1e-2] for line in lines)  # The data are unchanged.


@pytest.mark.parametrize(("seeds", "bars"), [(1, 0), (3, 2)])
def test_only_several_seeds_have_error_bars(seeds, bars):
    axes = Figure().add_subplot()
    outcomes = [outcome(d, s, test=0.1 + 0.01 * s) for d in (8, 20) for s in range(seeds)]
    final_errors.draw_against(axes, outcomes)
    drawn = [segment for bar in axes.collections for segment in bar.get_segments() if len(segment)]
    assert len(drawn) == bars
    for segment in drawn:
        assert segment[:, 1] == pytest.approx([10, 12])  # The seeds are 10, 11 and 12: mean 11, standard deviation 1.
    curves_axes = Figure().add_subplot()
    curves.draw_into(curves_axes, outcomes)
    assert len(curves_axes.collections) == bars  # bands


def test_diverged_runs_are_marked_and_explained(figures):
    assert set(legend_of(figures["against"])[-2:]) == {"diverged for some seeds: mean of the others", "diverged"}
    ax = figures["against"].axes[1]
    lines = {line.get_label(): line for line in ax.lines}
    assert np.isnan(lines["56 layers"].get_ydata()).tolist() == [False, False, False, True, False]
    assert lines["20 layers"].get_ydata()[-1] == pytest.approx(2.2)  # the mean of 2.0 and 2.4
    [cross] = [line for line in ax.lines if line.get_marker() == "x" and len(line.get_xdata())]
    assert (list(cross.get_xdata()), cross.get_color()) == ([1e-3], lines["56 layers"].get_color())
    [hollow] = [line for line in ax.lines if line.get_markerfacecolor() == "w" and len(line.get_xdata())]
    assert (list(hollow.get_xdata()), hollow.get_color()) == ([1e-2], lines["20 layers"].get_color())


def test_each_mark_of_a_stopped_sweep_has_one_legend_entry(drawn, tmp_path):
    """Equal marks share an entry for all kinds of failure, also across panels."""
    failures = {8: ("", "interrupted"), 20: ("", "not begun"), 32: ("interrupted", "not begun"), 56: ("diverged",) * 2}
    outcomes = [
        outcome(depth, seed, failure=failure, model__unit="plain" if depth < 32 else "residual")
        for depth, members in failures.items()
        for seed, failure in enumerate(members)
    ]
    final_errors.against_depth(outcomes, tmp_path / "depth.png", "digits: error against depth")
    curves.draw(outcomes, tmp_path / "curves.png", "digits: errors during training")
    against, over_steps = drawn
    assert sorted(" ".join(text.split()) for text in legend_of(against)) == [
        "diverged or interrupted or not begun", "interrupted or not begun for some seeds: mean of the others",
        "plain", "residual",
    ]  # fmt: skip
    assert [text for text in legend_of(over_steps) if "mean" in text] == [
        "diverged or interrupted or not begun (not in the mean)"
    ]


def test_curves_of_failed_runs_are_apart_and_end_in_a_cross():
    whole = [outcome(20, seed, test=0.02 * (1 + seed)) for seed in (0, 1)]
    axes = Figure().add_subplot()
    curves.draw_into(axes, [*whole, outcome(20, 2, test=0.2, failure="diverged"), outcome(56, 0, failure="crashed")])
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines["20 layers"].get_xdata()) == [225, 450, 675, 900]  # the steps of the finished runs
    assert lines["20 layers"].get_ydata()[-1] == pytest.approx(3)
    assert "crashed or diverged (not in the mean)" in lines
    crosses = [line for line in axes.lines if line.get_marker() == "x" and len(line.get_xdata())]
    assert [line.get_xdata()[-1] for line in crosses] == [450, 450]
    assert axes.get_ylim()[1] >= max(max(line.get_ydata()) for line in crosses)


def test_a_gap_is_explained():
    run = outcome(20)
    run.lines[1]["test_error"] = None
    axes = Figure().add_subplot()
    curves.draw_into(axes, [run])
    assert np.isnan(axes.lines[0].get_ydata()).tolist() == [False, True, False, False]
    assert "gap: not finite" in axes.get_legend_handles_labels()[1]


@pytest.mark.parametrize(("errors", "scale"), [((0.02, 0.03, 0.7), "symlog"), ((0.02, 0.3, 0.7), "linear")])
def test_several_lines_below_5_percent_make_the_axis_logarithmic(errors, scale):
    outcomes = [outcome(d, test=e) for d, e in zip((8, 20, 56), errors, strict=True)]
    for draw in (curves.draw_into, lambda axes, o: final_errors.draw_against(axes, o, line=layers)):
        axes = Figure().add_subplot()
        draw(axes, outcomes)
        assert axes.get_yscale() == scale
        bottom, low, top = axes.transData.transform([(1, 0), (1, 5), (1, 100)])[:, 1]
        assert ((low - bottom) / (top - bottom) > 0.4) == (scale == "symlog")
        assert axes.get_ylabel() == ("error (%), log above 1" if scale == "symlog" else "error (%)")


def test_layers_of_value_0_leave_a_gap_and_diverged_networks_are_named(drawn, tmp_path):
    def measured(unit, values, failure=""):
        config = outcome(20, model__unit=unit).run.config
        found = type("Propagation", (), dict.fromkeys(("weights", "activations", "responses"), values))
        return Measured(config, "after training", found if values else None, failure)

    dead = [("a", 1.0), ("b", 0.0), ("c", 100.0)]
    both = [measured("plain", dead), measured("residual", [], "diverged")]
    propagation.draw(both, tmp_path, "digits")
    gradients, _ = drawn
    assert np.isnan(gradients.axes[0].lines[0].get_ydata()).tolist() == [False, True, False]
    assert {"gap: 0, or not finite", "residual-20 with BN: diverged"} <= set(legend_of(gradients))
    assert all(sticks_out(figure) < 0.01 for figure in drawn)


def test_no_marker_is_cut_off_where_all_responses_are_equal(drawn, tmp_path):
    """At initialisation, BN gives every response a standard deviation of 1."""
    run, layers = outcome(20), [(name, 1.0) for name in "abc"]
    found = SimpleNamespace(weights=layers, activations=layers, responses=layers)
    propagation.draw([Measured(run.run.config, "at initialisation", found)], tmp_path, "digits")
    paper.figure_7([run], {run.run.label: [1.0] * 3}, tmp_path / "figure7.png", "digits", 8)
    for ax in (*drawn[1].axes, *drawn[2].axes):
        assert ax.get_ylim()[0] == 0
        assert ax.get_ylim()[1] > 1.04


def test_a_unit_has_one_style_in_all_panels_of_propagation(drawn, tmp_path):
    """Also where a panel lacks the other units, so that the legend is right for each."""

    def measured(unit, depth):
        layers = [("a", 1.0), ("b", 2.0)]
        found = SimpleNamespace(weights=layers, activations=layers, responses=layers)
        return Measured(outcome(depth, model__unit=unit).run.config, "after training", found)

    propagation.draw([measured("plain", 20), measured("residual", 20), measured("residual", 56)], tmp_path, "digits")
    for figure in drawn:
        colours = {}
        for line in (line for ax in figure.axes for line in ax.lines):
            colours.setdefault(line.get_label(), set()).add(line.get_color())
        assert sorted(map(len, colours.values())) == [1, 1]


def test_networks_of_other_blocks_have_panels_of_their_own_without_the_papers_numbers(drawn, tmp_path):
    """residual-56 and residual-bottleneck-56 are no two seeds of one network. Table 6 has only the first."""
    wide = {"model__unit": "residual", "model__block": "bottleneck"}
    both = [outcome(56, 0, 0.07, model__unit="residual"), outcome(56, 0, 0.05, **wide), outcome(20)]
    paper.figure_6(both, tmp_path / "figure6.png", "digits")
    axes = drawn[0].axes
    titles = ("plain", "residual", "residual-bottleneck")
    assert [ax.get_title() for ax in axes[1::2]] == [f"{name}: test error" for name in titles]
    published = [[t.get_text() for t in ax.texts if t.get_text()[0].isdigit()] for ax in axes[1::2]]
    assert published == [[], ["6.97"], []]
    responses = {o.run.label: [float(i)] * 55 for i, o in enumerate(both, start=1)}
    paper.figure_7(both, responses, tmp_path / "figure7.png", "digits", 8)
    assert {"residual-56", "residual-bottleneck-56", "plain-20"} == set(legend_of(drawn[1]))


def test_values_of_0_are_explained_in_the_figure_of_every_layer(drawn, tmp_path):
    run = outcome(20)
    for line in run.lines:
        line |= {"gradient_norm/stem_conv": 1.0 / line["step"], "gradient_norm/stage1.1.conv1": 0.0}
    layer_norms.draw([run, run], ["gradient_norm"], tmp_path / "figure.png", "digits: every layer")
    [figure] = drawn
    assert legend_of(figure) == ["white: 0, or not finite"]
    assert sticks_out(figure) < 0.01


def test_titles_have_the_protocol(figures):
    question, data = figures["against"].get_suptitle().splitlines()
    assert question == "Does weight decay matter more for deeper plain nets?"
    assert data == "digits, 1,442 training images of 8x8; batch 32, 900 steps; 3 seeds"
    assert (
        figures["against depth"].get_suptitle().splitlines()[1]
        == "1,442 training images of 8x8; batch 32, 900 steps; seed 0"
    )
    various = [outcome(), outcome(train__steps=900, data__name="cifar10")]
    assert protocol.summary(various).startswith("digits or CIFAR-10, 1,442 training images of side 8 or 32; ")


def test_labels_are_in_words():
    assert words.without_keys("plain-56 model.dropout=0.5") == "plain-56, dropout 0.5"
    assert words.without_keys("residual-20 B he, last scale 0") == "residual-20 B he, last scale 0"
    assert words.without_keys("optimizer.weight_decay=0.001 data.flip=False") == "weight decay 0.001, no flips"
    assert words.without_keys("x model.stage_units=(3, 4, 6) y.z_z=1") == "x, units of the stages 3, 4, 6 y.z z=1"
    assert words.setting("model.depth", 56) == "56 layers"
    for key in configs.KEYS:
        assert "_" not in words.name(key)
    assert len({words.name(key) for key in configs.KEYS}) == len(configs.KEYS)
    with pytest.raises(UserError, match=r"did you mean optimizer\.weight_decay"):
        words.name("optimizer.weight_deca")
    axes = Figure().add_subplot()
    some = [outcome(56, s, failure=f, model__dropout=0.5) for s, f in enumerate(("", "diverged", ""))]
    final_errors.draw_side_by_side(axes, [*some, outcome(8, failure="diverged", label="plain-8")])
    labels = [" ".join(label.get_text().split()) for label in axes.get_yticklabels()]
    assert labels == ["plain-56, dropout 0.5 (1 of 3 seeds diverged)", "plain-8 (diverged)"]


@pytest.mark.parametrize("x", ["model.unit", "model.stage_units", "data.flip", "optimizer.momentum"])
def test_any_key_can_be_an_axis(x):
    values = {
        "model.unit": ("residual", "plain"), "model.stage_units": ((3, 4, 6), (1, 1)), "data.flip": (True, False),
        "optimizer.momentum": (0.5, 0.9),
    }[x]  # fmt: skip
    axes = Figure().add_subplot()
    final_errors.draw_against(axes, [outcome(test=0.1, **{x.replace(".", "__"): v}) for v in values], x, line=layers)
    assert axes.get_xlabel() == words.name(x)
    assert [t.get_text() for t in axes.get_xticklabels()] == [words.value(v) for v in values]
    assert axes.lines[0].get_linestyle() == ("-" if x == "optimizer.momentum" else "None")


@pytest.mark.parametrize("draw", [curves.draw_into, lambda ax, o, name: final_errors.draw_against(ax, o, metric=name)])
@pytest.mark.parametrize("metric", ["epoch", "test_err", "validation_error"])
def test_only_errors_of_the_runs_are_drawn_as_errors(draw, metric):
    """Regression test: any column was drawn, multiplied by 100, as an error in %."""
    axes = Figure().add_subplot()
    with pytest.raises(UserError) as refusal:
        draw(axes, [outcome()], metric)
    assert str(refusal.value) == f"metric={metric!r} is not an error of these runs; choose from test_error, train_error"
    assert not axes.lines
    run = outcome()
    run.lines[-1]["validation_top5_error"] = 0.5
    draw(axes, [run], "validation_top5_error")
    assert list(axes.lines[0].get_ydata()) == [50]
    run.lines[-1]["test_superclass_error"] = 0.25  # by a metric of the user's own
    draw(Figure().add_subplot(), [run], "test_superclass_error")


@pytest.mark.parametrize("draw", [final_errors.draw_against, final_errors.draw_side_by_side])
def test_no_runs_are_refused(draw):
    with pytest.raises(UserError, match="^there are no runs to draw$"):
        draw(Figure().add_subplot(), [])


def test_a_figure_drawn_again_has_the_same_bytes(tmp_path):
    pictures = [tmp_path / name / "figure.png" for name in ("a", "b")]
    with matplotlib.rc_context({"font.size": 20, "axes.grid": False}):
        FIGURES["against depth"](pictures[0])
    FIGURES["against depth"](pictures[1])
    for form in (".png", ".svg"):
        first, second = (path.with_suffix(form).read_bytes() for path in pictures)
        assert first == second
    assert b"dc:date" not in second
    assert sorted(path.name for path in pictures[0].parent.iterdir()) == ["figure.png", "figure.svg"]


def test_matplotlibs_settings_stay_unchanged(tmp_path):
    """Importing all drawing modules, and drawing, changes no setting of matplotlib and not its backend."""
    modules = ", ".join(path.stem for path in Path(style.__file__).parent.glob("*.py"))
    program = f"""
import matplotlib, pathlib, sys
matplotlib.use("svg")
matplotlib.rcParams.update({{"axes.grid": False, "font.size": 17}})
before = dict(matplotlib.rcParams)
from resnet_flax.figures import {modules}
gates.draw({{"highway-20": dict.fromkeys(("at initialisation", "after training"), [("gate", 0.1)])}},
           pathlib.Path({str(tmp_path / "figure.png")!r}), "gates")
assert "matplotlib.pyplot" not in sys.modules
assert dict(matplotlib.rcParams) == before and matplotlib.get_backend() == "svg"
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
