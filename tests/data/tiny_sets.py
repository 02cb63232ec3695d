"""Helpers of the tests of diffjax.data."""

import io

import ml_collections
import numpy as np
from PIL import Image


def config(name, directory="", shape=(6, 5, 3), train="train", test="test", in_memory=True):
    return ml_collections.ConfigDict(
        dict(name=name, dir=str(directory), shape=shape, train_split=train, test_split=test, in_memory=in_memory)
    )


def embedded(name, **fields):
    """What an embedded set needs: without in_memory, and with no field but its own."""
    return ml_collections.ConfigDict(dict(name=name, dir="", train_split="", test_split="") | fields)


def everything(dataset):
    return dataset.gather(np.arange(len(dataset)))


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def striped(i):
    """A wide (i even) or tall (i odd) image in three parts along its long side: red, green (the centre) and blue."""
    image = np.zeros((10, 30, 3), np.uint8)
    for c in range(3):
        image[:, 10 * c : 10 * c + 10, c] = 100 + i
    return image if i % 2 == 0 else image.transpose(1, 0, 2)
