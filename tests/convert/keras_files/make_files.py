"""Makes the files beside it with Keras itself: python tests/convert/keras_files/make_files.py

They were made by Keras 3.15.1 with PyTorch 2.13 behind it (pip install keras torch). The tests read them without Keras.

whole.h5, net.weights.h5   one net, saved in both ways
scores.npz                 images (N, H, W, C) and the scores that Keras gives them
"""

import os
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
from keras import layers

FOLDER = Path(__file__).parent


def main() -> None:
    net = keras.Sequential(
        [
            keras.Input((9, 8, 3)),
            layers.Conv2D(4, 3, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.Conv2D(5, (3, 2), strides=2),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Dropout(0.3),
            layers.Flatten(),
            layers.Dense(6, activation="relu"),
            layers.BatchNormalization(),
            layers.Dense(3),
        ]
    )
    rng = np.random.default_rng(0)
    drawn = [rng.normal(0, 0.5, weight.shape) for weight in net.get_weights()]
    net.set_weights([w**2 + 0.1 if "variance" in v.path else w for w, v in zip(drawn, net.weights, strict=True)])
    images = rng.normal(size=(4, 9, 8, 3)).astype(np.float32)
    np.savez(FOLDER / "scores.npz", images=images, scores=net.predict(images, verbose=0))
    net.save(FOLDER / "whole.h5")
    net.save_weights(FOLDER / "net.weights.h5")


if __name__ == "__main__":
    main()
