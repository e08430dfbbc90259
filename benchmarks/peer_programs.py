"""AlexNet in one library, in a process of its own: what bench_peers.py starts. Not to be run by hand.

    python peer_programs.py NAME KIND BATCH THREADS MODEL

NAME is a key of PROGRAMS, KIND "training" or "inference", MODEL the network as an ONNX file, for who reads one. When the
program is ready, it says so on standard output; then for each line of standard input it runs one step and answers with its
seconds.
"""

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import nets
import numpy as np

LEARNING_RATE, MOMENTUM, DECAY = 1e-4, 0.9, 5e-4
Step = Callable[[], object]


# ---------------------------------------------------------------------------------------------------------------- minidl


def minidl(kind: str, batch: int, threads: int, model: str) -> Step:
    import minidl_programs
    from common import use_threads

    use_threads(threads)
    program = minidl_programs.Towers()
    inputs = program.inputs(*nets.random_images(batch))
    return lambda: (program.train if kind == "training" else program.infer)(*inputs)


# --------------------------------------------------------------------------------------------------------------- PyTorch


def torch_in(layout: str, compiled: bool) -> Callable[[str, int, int, str], Step]:
    def make(kind: str, batch: int, threads: int, model: str) -> Step:
        import torch
        import torch_programs

        torch.set_num_threads(threads)
        program = torch_programs.Program(nets.alexnet(torch.nn), layout)
        if compiled:
            program.net = torch.compile(program.net)
        inputs = program.inputs(*nets.random_images(batch))
        return lambda: (program.train if kind == "training" else program.infer)(*inputs)

    return make


# ------------------------------------------------------------------------------------------------------------ TensorFlow


def tensorflow_with(xla: bool) -> Callable[[str, int, int, str], Step]:
    def make(kind: str, batch: int, threads: int, model: str) -> Step:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        net = TensorFlowAlexNet(tf)
        images, labels = nets.random_images(batch)
        x, labels = tf.constant(images.transpose(0, 2, 3, 1)), tf.constant(labels)
        step = tf.function(net.train if kind == "training" else net.infer, jit_compile=xla)
        return lambda: step(x, labels).numpy()

    return make


class TensorFlowAlexNet:
    """The paper's network on one device, channels last; a convolution of two groups is two convolutions, as TensorFlow's CPU
    has none with groups and a gradient."""

    CONVS = (((11, 11, 3, 96), 1), ((5, 5, 48, 256), 2), ((3, 3, 256, 384), 1), ((3, 3, 192, 384), 2), ((3, 3, 192, 256), 2))
    LINEARS = ((9216, 4096), (4096, 4096), (4096, 1000))

    def __init__(self, tf: Any) -> None:
        self.tf = tf
        shapes = [*(shape for shape, _ in self.CONVS), *self.LINEARS]
        self.weights = [tf.Variable(tf.random.normal(shape, stddev=0.01)) for shape in shapes]
        self.biases = [tf.Variable(tf.zeros(shape[-1:])) for shape in shapes]
        self.parameters = self.weights + self.biases
        self.velocities = [tf.Variable(tf.zeros_like(p)) for p in self.parameters]

    def scores(self, x: Any, training: bool) -> Any:
        tf = self.tf
        y = tf.pad(x, [[0, 0], [0, 3], [0, 3], [0, 0]])
        for i, (_, groups) in enumerate(self.CONVS):
            parts = zip(tf.split(y, groups, axis=3), tf.split(self.weights[i], groups, axis=3), strict=True)
            convolved = [tf.nn.conv2d(part, w, 4 if i == 0 else 1, "VALID" if i == 0 else "SAME") for part, w in parts]
            y = tf.nn.relu(tf.nn.bias_add(convolved[0] if groups == 1 else tf.concat(convolved, axis=3), self.biases[i]))
            if i < 2:
                y = tf.nn.local_response_normalization(y, depth_radius=2, bias=2.0, alpha=1e-4 / 5, beta=0.75)
            if i in (0, 1, 4):
                y = tf.nn.max_pool2d(y, 3, 2, "VALID")
        y = tf.reshape(y, (-1, 9216))
        for i in (5, 6, 7):
            y = tf.matmul(y, self.weights[i]) + self.biases[i]
            if i < 7:
                y = tf.nn.relu(y)
                y = tf.nn.dropout(y, 0.5) if training else y
        return y

    def infer(self, x: Any, labels: Any) -> Any:
        return self.scores(x, training=False)

    def train(self, x: Any, labels: Any) -> Any:
        tf = self.tf
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, self.scores(x, training=True)))
        gradients = tape.gradient(loss, self.parameters)
        for p, g, v in zip(self.parameters, gradients, self.velocities, strict=True):
            v.assign(MOMENTUM * v - LEARNING_RATE * (g + DECAY * p))
            p.assign_add(v)
        return loss


# -------------------------------------------------------------------------------------------------- who reads ONNX files


def onnxruntime(kind: str, batch: int, threads: int, model: str) -> Step:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: np.ascontiguousarray(nets.random_images(batch)[0])}
    return lambda: session.run(None, inputs)


def openvino(kind: str, batch: int, threads: int, model: str) -> Step:
    import openvino as ov

    network = ov.Core().read_model(model)
    network.reshape([batch, 3, 224, 224])
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    compiled = ov.compile_model(network, "CPU", settings)
    x = np.ascontiguousarray(nets.random_images(batch)[0])
    return lambda: compiled([x])


PROGRAMS: dict[str, Callable[[str, int, int, str], Step]] = {
    "minidl": minidl,
    "PyTorch": torch_in("contiguous", compiled=False),
    "PyTorch, channels_last": torch_in("channels_last", compiled=False),
    "PyTorch compiled": torch_in("contiguous", compiled=True),
    "PyTorch compiled, channels_last": torch_in("channels_last", compiled=True),
    "TensorFlow": tensorflow_with(xla=False),
    "TensorFlow, XLA": tensorflow_with(xla=True),
    "onnxruntime": onnxruntime,
    "OpenVINO": openvino,
}


def main() -> None:
    name, kind, batch, threads, model = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes elsewhere
    step = PROGRAMS[name](kind, int(batch), int(threads), model)
    for _ in range(3):  # what is compiled or planned at first is not timed
        step()
    print("ready", file=answers)
    for _ in sys.stdin:
        started = time.perf_counter()
        step()
        print(time.perf_counter() - started, file=answers)


if __name__ == "__main__":
    main()
