"""The committed figures are those that ``python -m results.redraw`` draws."""

from resnet_flax.figures import style
from results import redraw


def test_each_committed_figure_is_drawn_from_the_data_beside_it(tmp_path, monkeypatch):
    """Curves are not drawn of runs whose final errors alone are committed."""
    drawn = []
    monkeypatch.setattr(style, "save", lambda figure, path: drawn.append(str(path.relative_to(tmp_path))))
    redraw.redraw(tmp_path)
    committed = {str(path.relative_to(redraw.HERE)) for path in redraw.HERE.rglob("*.png")}
    assert len(drawn) == len(set(drawn))
    assert set(drawn) <= committed
    assert {path.rpartition("/")[2] for path in committed - set(drawn)} == {"curves.png", "layer_norms.png"}
