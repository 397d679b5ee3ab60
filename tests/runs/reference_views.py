"""Reference for views: a network's probabilities averaged over crops that only PIL and NumPy compute."""

import numpy as np
from PIL import Image

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # ImageNet's


def resized(path, side):
    """Reads an image as [H, W, 3] in [0, 1], with the shorter side resized to ``side`` and the longer rounded down."""
    image = Image.open(path).convert("RGB")
    width, height = image.size
    size = (side, side * height // width) if width <= height else (side * width // height, side)
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR)) / 255


def middle(array, height, width):
    top, left = round((array.shape[0] - height) / 2), round((array.shape[1] - width) / 2)
    return array[top : top + height, left : left + width]


def crops(path, resize, side):
    """Returns the centre crop, and the paper's ten crops: four corners and the centre, each with its mirror image."""
    square = middle(resized(path, resize), resize, resize)
    centre = middle(square, side, side)
    ten = [square[:side, :side], square[:side, -side:], square[-side:, :side], square[-side:, -side:], centre]
    return {"center": [centre], "10crop": ten + [np.fliplr(crop) for crop in ten]}


def scales(path, image_size):
    """Returns the image at the paper's five scales, in proportion to the crop. Sides are multiples of 32."""
    found = []
    for scale in (224, 256, 384, 480, 640):
        array = resized(path, round(scale * image_size / 224))
        found.append(middle(array, *(32 * (side // 32) for side in array.shape[:2])))
    return found


def probabilities(net, views):
    """Returns the mean over views [H, W, 3] of the softmax of a model's logits, [classes]."""
    answers = []
    for view in views:
        logits = np.asarray(net.features(((view - MEAN) / STD)[None].astype(np.float32))["logits"][0], np.float64)
        answers.append(np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum())
    return np.mean(answers, 0)
