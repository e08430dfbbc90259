"""Run the experiments that test the paper's claims.

python examples/claims/run.py           all of them in a small form, on
                                        embedded images
python examples/claims/run.py relu_tanh --data cifar10-jpeg.tar.gz
                                        one of them, on CIFAR-10
python examples/claims/run.py --data DIR --seeds 5 --budget 60
                                        all of them, for an hour; the same
                                        command goes on
"""

import os
import sys
from pathlib import Path

# one thread each, so that figures of different runs are comparable, and bit-equal; before NumPy is loaded
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

sys.path.append(str(Path(__file__).parents[1] / "alexnet"))  # its guards

import checkout  # noqa: E402, F401  before minidl
from queue_of_runs import main  # noqa: E402

from minidl import pipe  # noqa: E402

if __name__ == "__main__":
    sys.exit(pipe.until_the_reader_leaves(main))
