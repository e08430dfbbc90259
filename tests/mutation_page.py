"""docs/mutations.md, for the tests of the columns that need no PyTorch and of those that do."""

from pathlib import Path

from minidl.study.gallery.mutation_checks import CHECKS, table

PAGE = (Path(__file__).parents[1] / "docs/mutations.md").read_text()
AGAIN = "docs/mutations.md is not what is computed; make it again: python -m minidl.study mutations --update docs/mutations.md"


def committed():
    """The page's table, as `table()` gives it."""
    part = PAGE.partition("<!-- table -->")[2].partition("<!-- end of table -->")[0]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in part.strip().splitlines()]
    assert lines[0] == ["mutation", "case", *CHECKS], AGAIN
    rows = lines[2:-1]
    for before, row in zip([None, *rows], rows, strict=False):
        row[0] = row[0].partition("]")[0].strip("[") or before[0]
    return rows


def check_columns(checks):
    """AssertionError, with the rows and the command, unless these columns of the page are what is computed."""
    columns = [0, 1, *(2 + list(CHECKS).index(check) for check in checks)]
    page = [[row[i] for i in columns] for row in committed()]
    computed = table(checks)
    differences = [f"computed: {row}" for row in computed if row not in page]
    differences += [f"the page: {row}" for row in page if row not in computed]
    assert page == computed, "\n".join([AGAIN, *differences])
