"""What pyproject.toml can't say: a wheel has the AlexNet of examples/ too, which `python -m minidl.study` shows by default."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

# of examples/alexnet: the network, what reads a run's checkpoint and mean image, and what these import
PARTS = ("model.py", "files.py", "run.py", "data.py", "guards.py")


class BuildWithAlexNet(build_py):
    """Beside minidl/study/models.py, which looks there, and else in examples/alexnet: so there is one copy to edit."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            folder = Path(self.build_lib, "minidl", "study", "alexnet")
            self.mkpath(str(folder))
            for part in PARTS:
                self.copy_file(f"examples/alexnet/{part}", str(folder / part))


setup(cmdclass={"build_py": BuildWithAlexNet})
