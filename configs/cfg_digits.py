"""Digits of a class by classifier-free guidance (Ho & Salimans 2022): configs/digits.py, told the class.

A tenth of the labels is hidden in training, so that one network gives p(x | y) and p(x). Samples are columns, one for
each class. `--mode=sample --workdir=DIR --label=3 --scale=2` draws one class; scale 1 is the conditional model.

Cost: minutes on 2 CPU cores. Expected: digits one can read, each as its column says; the numbers by scale stand on the
results page.
"""

from ml_collections import ConfigDict

from configs import digits


def get_config() -> ConfigDict:
    config = digits.get_config()
    config.net.num_classes = 10
    config.diffusion.label_dropout = 0.1
    config.guidance = ConfigDict(
        dict(
            scale=2.0,  # of D + (w - 1)(D - D'), D told the class and D' not: 1 conditional, 0 unconditional
            label=-1,  # the class to draw; -1: all in turn
            interval=(0.0, 1.0),  # the times at which the scale holds; it is 1 elsewhere
            rescale=0.0,  # 1: x_0 keeps the deviation that it has without guidance
            parallel=1.0,  # what is left of the part of D - D' along D; 0: adaptive projected guidance
            limit=0.0,  # the largest norm of D - D'; 0: any
            threshold=0.0,  # the quantile of dynamic thresholding; 0: x_0 is clipped to [-1, 1]
        )
    )
    config.sampling.update(sampler="unipc", order=3, steps=20, spacing="karras")
    config.evaluation.grid = 100  # a multiple of 10: a column of samples is a class
    return config
