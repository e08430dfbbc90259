"""The grader of examples/assignments: right backwards, the gallery's mistakes written by hand, and files that break a rule."""

from pathlib import Path

import pytest

from minidl.study.__main__ import main
from minidl.study.gallery.grade import ASSIGNMENTS, grade
from minidl.study.gallery.mutations import find

FOLDER = Path(__file__).parents[3] / "examples" / "assignments"
FILES = {path.stem[3:]: path for path in sorted(FOLDER.glob("*.py"))}

POOL = """
    winner, shape, (kh, kw), (sh, sw), (ph, pw) = saved
    gpadded = np.zeros((shape[0], shape[1], shape[2] + 2 * ph, shape[3] + 2 * pw))
    for u, v in np.ndindex(kh, kw):
        for n, c, i, j in np.argwhere(winner == u * kw + v):
            gpadded[n, c, i * sh + u, j * sw + v] += gy[n, c, i, j]
    return gpadded[:, :, ph : ph + shape[2], pw : pw + shape[3]]
"""
CONV = """
    x, w, (sh, sw), (ph, pw) = saved
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    gpadded, gw, (kh, kw) = np.zeros(padded.shape), np.zeros(w.shape), w.shape[2:]
    for i, j in np.ndindex(gy.shape[2:]):
        here = np.s_[:, :, i * sh : i * sh + kh, j * sw : j * sw + kw]
        gpadded[here] += np.einsum("no,ocuv->ncuv", gy[:, :, i, j], w)
        gw += np.einsum("no,ncuv->ocuv", gy[:, :, i, j], padded[here])
    return gpadded[:, :, ph : ph + x.shape[2], pw : pw + x.shape[3]], gw, gy.sum(axis=(0, 2, 3))
"""
LRN = """
    x, d, size, alpha, beta = saved
    gx = gy * d**-beta
    for c in range(x.shape[1]):
        for e in range(max(c - size // 2, 0), min(c - size // 2 + size, x.shape[1])):
            gx[:, e] -= 2 * alpha / size * beta * x[:, e] * (gy[:, c] * x[:, c] * d[:, c] ** (-beta - 1))
    return gx
"""
RIGHT = {
    "relu": "return np.where(saved > 0, gy, 0.0)",
    "add": "return gy, gy if len(saved[1]) == 2 else gy.sum(axis=0)",
    "linear": "x, w = saved; return gy @ w, gy.T @ x, gy.sum(axis=0)",
    "softmax": "return saved * (gy - (gy * saved).sum(axis=1, keepdims=True))",
    "cross_entropy": "p, t = saved; on = (t != -100)[:, None]; return gy * on * (p - (t[:, None] == np.arange(5))) / on.sum()",
    "dropout": "mask, p = saved; return gy * mask / (1 - p)",
    "max_pool2d": POOL,
    "conv2d": CONV,
    "batch_norm": "z, inverse, w = saved; gw = (gy * z).sum(axis=0); gb = gy.sum(axis=0); "
    "return w * inverse * (gy - gb / len(z) - z * gw / len(z)), gw, gb",
    "local_response_norm": LRN,
}

WRONG = {  # of a right backward, a piece and what a student writes in its place
    "relu-sign-of-gradient": ("relu", "saved > 0", "gy > 0"),
    "add-broadcast-not-summed": ("add", " if len(saved[1]) == 2 else gy.sum(axis=0)", ""),
    "linear-bias-mean": ("linear", "gy.sum", "gy.mean"),
    "linear-bias-not-summed": ("linear", "gy.sum(axis=0)", "gy"),
    "linear-weight-transposed": ("linear", "gy.T @ x", "x.T @ gy"),
    "softmax-diagonal": ("softmax", "saved * (gy - (gy * saved).sum(axis=1, keepdims=True))", "gy * saved * (1 - saved)"),
    "softmax-zero": ("softmax", "return saved", "return 0 * saved"),
    "cross-entropy-one-hot": ("cross_entropy", "(p - (t[:, None] == np.arange(5)))", "p"),
    "cross-entropy-ignored-rows": ("cross_entropy", "gy * on * (p", "gy * (p"),
    "dropout-mask": ("dropout", "gy * mask", "gy"),
    "dropout-scale": ("dropout", " / (1 - p)", ""),
    "max-pool2d-overlap-overwritten": ("max_pool2d", "+= gy", "= gy"),
    "max-pool2d-kernel-height": ("max_pool2d", "u * kw + v", "u * kh + v"),
    "conv2d-bias-first-image": ("conv2d", "gy.sum(axis=(0, 2, 3))", "gy[0].sum(axis=(1, 2))"),
    "conv2d-kernel-flipped": ("conv2d", "gy[:, :, i, j], w)", "gy[:, :, i, j], w[:, :, ::-1, ::-1])"),
    "conv2d-padding-off": (
        "conv2d",
        "gpadded[:, :, ph : ph + x.shape[2], pw : pw + x.shape[3]]",
        "gpadded[:, :, : x.shape[2], : x.shape[3]]",
    ),
    "batch-norm-constant-statistics": ("batch_norm", "(gy - gb / len(z) - z * gw / len(z))", "gy"),
    "batch-norm-constant-variance": ("batch_norm", " - z * gw / len(z)", ""),
    "lrn-cross-term": ("local_response_norm", "gx[:, e] -= ", "gx[:, e] -= 0 * "),
    "lrn-alpha-not-divided": ("local_response_norm", "alpha / size", "alpha"),
}


def written(folder: Path, name: str, body: str) -> Path:
    """The assignment's file with this backward."""
    path = folder / f"{name}.py"
    blank = '    raise NotImplementedError("backward")\n'
    text = FILES[name].read_text()
    assert text.count(blank) == 1
    path.write_text(text.replace(blank, f"    {body.strip()}\n"))
    return path


def test_every_assignment_has_a_file_and_a_solution() -> None:
    assert set(FILES) == set(ASSIGNMENTS) == set(RIGHT)


@pytest.mark.parametrize("name", RIGHT)
def test_right(name: str, tmp_path: Path) -> None:
    given = grade(written(tmp_path, name, RIGHT[name]))
    assert given.right, given.text
    assert all(f"g{x}: right" in given.text for x in ASSIGNMENTS[name].inputs)


@pytest.mark.parametrize("name", FILES)
def test_not_written(name: str) -> None:
    given = grade(FILES[name])
    assert not given.right
    assert given.text == f"{FILES[name]}: not written yet: backward"


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_is_named(mistake: str, tmp_path: Path) -> None:
    name, right, wrong = WRONG[mistake]
    assert RIGHT[name].count(right) == 1
    given = grade(written(tmp_path, name, RIGHT[name].replace(right, wrong)))
    assert not given.right
    named = [line.split()[3].rstrip(":") for line in given.text.splitlines() if "the mistake is" in line]
    assert named == [mistake], given.text
    assert find(mistake).mistake in given.text
    assert f"docs/mutations.md#{mistake}" in given.text


def test_an_unknown_mistake_is_wrong_without_a_name(tmp_path: Path) -> None:
    text = grade(written(tmp_path, "relu", "return np.where(saved > 0, 3 * gy, 0.0)")).text
    assert "gx: wrong, on 1 of 1 examples; inputs (4, 5)" in text
    assert "gradcheck: relu: backward disagrees with forward for x (4, 5)" in text
    assert "(ratio 3)" in text
    assert "the mistake is" not in text


def test_a_mutation_that_can_not_run_names_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stops(name: str) -> None:
        raise ValueError(name)

    monkeypatch.setattr("minidl.study.gallery.grade.mutation", stops)
    given = grade(written(tmp_path, "relu", "return np.where(saved > 0, 3 * gy, 0.0)"))
    assert not given.right
    assert "the mistake is" not in given.text


BROKEN = {
    "None": ("linear", "x, w = saved; return gy @ w, None, gy.sum(axis=0)", "gw must be an array of NumPy, got None"),
    "too few": ("linear", "return gy", "backward must return 3: gx, gw, gb; got 1"),
    "float32": ("relu", "return gy.astype(np.float32)", "gx must be float64, as its input is, got float32"),
    "shape": ("relu", "return gy[:2]", "its shape must be (4, 5), got (2, 5)"),
    "in place": ("relu", "gy[saved <= 0] = 0; return gy", "gy (4, 5) must not be changed in place"),
    "exception": ("relu", "return gy @ saved", "in backward: return gy @ saved\n  ValueError: matmul"),
    "syntax": ("relu", "return gy +", "is not Python: invalid syntax: return gy +"),
    "exit": ("relu", "raise SystemExit(0)", "SystemExit: 0"),
    "only once": (
        "relu",
        "if hasattr(np, 'seen_once'): del np.seen_once; raise ValueError('again')\n    np.seen_once = 1; return 2 * gy",
        "gradcheck: could not run: ValueError: again",
    ),
    "times 3": ("relu", "return np.where(saved > 0, 3 * gy, 0.0)", "all numbers are 3 times what they must be"),
    "NumPy is there": ("dropout", "return np.zeros(gy.shape)", "gx: wrong"),
    "NaN": ("relu", "return gy * np.nan", "20 of 20 numbers differ"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_rule_is_broken(name: str, tmp_path: Path) -> None:
    assignment, body, said = BROKEN[name]
    given = grade(written(tmp_path, assignment, body))
    assert not given.right
    assert said in given.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "ASSIGNMENT must be one of relu, add,"),
        ("ASSIGNMENT = 'rleu'", "got 'rleu'"),
        ("ASSIGNMENT = 'relu'", "forward must be a function of the file, got None"),
        ("ASSIGNMENT = 'relu'\nbackward = forward = lambda *a: 1", "forward must return y and saved, two things, got int"),
        ("ASSIGNMENT = 'relu'\nbackward = forward = lambda x: (x, x)", "forward was changed: y is not what it should be"),
    ],
)
def test_a_file_without_what_it_must_have(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "file.py"
    path.write_text(text)
    given = grade(path)
    assert not given.right
    assert said in given.text


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    right = written(tmp_path, "relu", RIGHT["relu"])
    assert main(["grade", str(right)]) == 0
    assert main(["grade", str(right), str(FILES["add"])]) == 1
    assert "not written yet" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["grade", str(tmp_path / "nothing.py")])
    assert ended.value.code == 2
    assert "nothing.py is not a file" in capsys.readouterr().err
