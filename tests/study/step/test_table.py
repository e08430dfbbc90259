"""Tables fit the terminal: which columns go, what is said about them, and what is never cut."""

import pytest

from minidl.study.step.table import fitted, shortened, terminal_width, wrapped

ROWS = [["name", "first", "second"], ["a", "1,000,000", "12"], ["b", "2", "3,456"]]


def test_columns_go_one_by_one_and_a_note_names_them():
    whole = fitted(ROWS, (1, 2), ["second", "first"], None)
    assert whole.lines == ["name      first  second", "a     1,000,000      12", "b             2   3,456"]
    assert whole.note == [] and fitted(ROWS, (1, 2), ["second", "first"], 23) == whole
    less = fitted(ROWS, (1, 2), ["second", "first"], 22, rest="--wide shows all")
    assert less.lines == ["name      first", "a     1,000,000", "b             2"]
    assert " ".join(line.strip() for line in less.note) == "Left out, to fit 22 columns: second. --wide shows all."
    assert max(map(len, less.note)) <= 22
    assert fitted(ROWS, (1, 2), ["first", "second"], 22).lines == ["name  second", "a         12", "b      3,456"]


def test_what_may_not_go_is_whole_however_narrow_it_gets():
    assert fitted(ROWS, (1, 2), ["second"], 5).lines == ["name      first", "a     1,000,000", "b             2"]


def test_cells_are_compact_only_where_the_table_is_too_wide():
    compact = {"name": lambda cell: cell * 2}
    assert fitted(ROWS, (), ["second"], 23, compact=compact).lines[1].startswith("a  ")
    assert fitted(ROWS, (), ["second"], 22, compact=compact).lines[1].startswith("aa  ")


def test_short_names_stay_different():
    names = [f"features.stage{i}.block0.conv.weight" for i in (1, 2)]
    short = shortened([*names, names[0], "fc"], 12)
    assert short[0] == short[2] != short[1] and short[3] == "fc"
    assert len(short[0]) < len(names[0]) and ".." in short[0]


def test_long_lines_go_on_further_in_and_words_stay_whole():
    assert wrapped("  one two-three four\nfive", 15) == "  one two-three\n      four\nfive"
    assert wrapped("x" * 20, 10) == "x" * 20
    assert wrapped("one two", None) == "one two"


@pytest.mark.parametrize("columns, width", [("120", 120), ("", 80), ("0", 80)])
def test_the_width_is_that_of_columns_and_80_without_a_terminal(monkeypatch, columns, width):
    def no_terminal(*_):
        raise OSError

    monkeypatch.setattr("os.get_terminal_size", no_terminal)
    monkeypatch.setenv("COLUMNS", columns)
    assert terminal_width() == width
