"""The laboratory's documents: whole, alone, one for each layer; and the command that writes them."""

import json
import re

import pytest

from minidl.study.__main__ import main
from minidl.study.laboratory import pages


@pytest.mark.parametrize("name", pages.LAYERS)
def test_a_page_is_one_file_that_fetches_nothing(name):
    text = pages.page(name)
    assert text.startswith("<!doctype html>") and text.rstrip().endswith("</html>") and 'name="viewport"' in text
    for foreign in ("http:", "https:", "src=", "@import", "url(", "import(", "fetch("):
        assert foreign not in text
    assert re.findall(r'href="([^"]*)"', text) == ["index.html"]
    assert not re.search(r"\$(name|lead|style|script|numbers|steps|objective)\b", text)


def test_a_page_begins_with_its_layers_first_choices_and_pythons_numbers():
    (text,) = re.findall(r"data-numbers>(.*?)</script>", pages.page("linear"))
    data, layer = json.loads(text), pages.LAYERS["linear"]
    assert data["settings"] == {"examples": 2, "in_features": 3, "out_features": 2, "bias": True}
    assert data["values"]["w"] == layer.values["w"].tolist()
    x, w, b = (layer.values[name] for name in ("x", "w", "b"))
    assert data["python"]["y"] == (x[:2, :3] @ w[:2, :3].T + b[:2]).tolist()


def test_the_command_writes_a_page_for_each_layer_and_an_index(tmp_path, capsys):
    assert main(["laboratory", "--out", str(tmp_path / "lab")]) == 0
    assert {path.stem for path in (tmp_path / "lab").iterdir()} == {"index", *pages.NAMES}
    assert f"index.html and {len(pages.NAMES)} pages." in capsys.readouterr().out
    links = re.findall(r'href="([^"]*)"', (tmp_path / "lab/index.html").read_text("utf-8"))
    assert links == [f"{name}.html" for name in pages.NAMES]


def test_the_command_writes_one_page(tmp_path, capsys):
    main(["laboratory", "relu", "--out", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["relu.html"]
    with pytest.raises(SystemExit):
        main(["laboratory", "relux", "--out", str(tmp_path)])
    assert "invalid choice: 'relux'" in capsys.readouterr().err
