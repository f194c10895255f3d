"""Tables as pages that need nothing else."""

import json

from mvit.parent.report.grid import Grid
from mvit.parent.report.output import show
from mvit.parent.report.page import page

GRID = Grid(("name", "acc"), [{"name": "<b>猫</b> & co", "acc": "98.5"}, {"name": "b", "acc": "9.5"}], ("acc",))


def test_a_page_holds_its_data_and_asks_for_nothing(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    text = page("R&D", GRID, pictures=[("a <i>", tmp_path / "a.png"), ("none", tmp_path / "b.png")], below=["x < y"])
    assert "<title>R&amp;D</title>" in text
    assert "<td>&lt;b&gt;猫&lt;/b&gt; &amp; co</td>" in text
    assert '<td class="number">98.5</td>' in text
    assert "<pre>x &lt; y</pre>" in text
    assert text.count("<figure>") == 1
    assert 'alt="a &lt;i&gt;" src="data:image/png;base64,iVBORw=="' in text
    assert "http" not in text


def test_every_format_is_printed(capsys):
    show(GRID, "json", title="", none="")
    assert json.loads(capsys.readouterr().out)[1] == {"name": "b", "acc": "9.5"}
    show(GRID, "csv", title="", none="")
    assert capsys.readouterr().out.splitlines()[0] == "name,acc"
    show(GRID, "markdown", title="", none="")
    assert capsys.readouterr().out.startswith("| name")
    show(GRID, "html", title="", none="")
    assert capsys.readouterr().out.startswith("<!doctype html>")
    show(GRID, "terminal", title="", none="", below=["more"])
    assert capsys.readouterr().out.splitlines()[-1] == "more"
