"""After the tests: how many of the onnx package's own are right, refused and wrong, as a table."""

from typing import Any


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for report in (*terminalreporter.stats.get("passed", ()), *terminalreporter.stats.get("failed", ())):
        for name, table in report.user_properties:
            if name == "counts":
                terminalreporter.section("tests of the onnx package")
                terminalreporter.write_line(table)
