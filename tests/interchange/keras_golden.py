"""Computes the logits of Keras's ResNet-50 for test_imagenet_weights.py. Needs Keras 3, which the tests do not:

KERAS_BACKEND=jax python -m tests.interchange.keras_golden

The stored logits are from Keras 3.15.1 with jax 0.10.2 on a CPU.
"""

import json
from pathlib import Path

GOLDEN = Path(__file__).with_name("keras_golden.json")
SIDE, CLASSES = 64, 5


def main():
    import keras

    from tests.interchange import random_weights

    model = keras.applications.ResNet50(
        weights=None, classes=CLASSES, input_shape=(SIDE, SIDE, 3), classifier_activation=None
    )
    for layer in model.layers:
        for variable in layer.weights:
            name = f"{layer.name}/{variable.name}"
            variable.assign(random_weights.tensor(name, variable.shape))
    inputs = keras.applications.resnet.preprocess_input(random_weights.images(2, SIDE).copy())
    GOLDEN.write_text(json.dumps({"logits": model.predict(inputs, verbose=0).tolist()}) + "\n")


if __name__ == "__main__":
    main()
