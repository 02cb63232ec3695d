"""Class-conditional digits by classifier-free guidance (Ho & Salimans 2022): configs/digits.py with the class.

A tenth of the labels is hidden in training, so one network models both p(x | y) and p(x). In the picture of samples,
each column is a class. `--mode=sample --workdir=DIR --label=3 --scale=2` draws one class. Scale 1 is the conditional
model.

Cost: minutes on 2 CPU cores. Expected: readable digits, each of the class of its column. The results page has the
numbers for each scale.
"""

from ml_collections import ConfigDict

from configs import digits


def get_config() -> ConfigDict:
    config = digits.get_config()
    config.net.num_classes = 10
    config.diffusion.label_dropout = 0.1
    config.guidance = ConfigDict(
        dict(
            scale=2.0,  # w of D + (w - 1)(D - D'), D with and D' without the class: 1 conditional, 0 unconditional
            label=-1,  # the class to draw; -1: all in turn
            interval=(0.0, 1.0),  # the times at which the scale applies; elsewhere it is 1
            rescale=0.0,  # 1: x_0 keeps the standard deviation that it has without guidance
            parallel=1.0,  # factor on the component of D - D' parallel to D; 0: adaptive projected guidance
            limit=0.0,  # the largest norm of D - D'; 0: no limit
            threshold=0.0,  # the quantile of dynamic thresholding; 0: x_0 is clipped to [-1, 1]
        )
    )
    config.sampling.update(sampler="unipc", order=3, steps=20, spacing="karras")
    config.evaluation.grid = 100  # a multiple of 10: a column of samples is a class
    return config
