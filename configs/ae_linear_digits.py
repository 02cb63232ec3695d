"""A linear auto-encoder on scikit-learn's digits, 8x8: 32 numbers an image, in the span of its principal components.

The other configs/ae_*_digits.py change what `autoencoder` says: same code size and, but for k-means, the same budget of
steps. Cost: seconds on two CPU cores.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            system="autoencoder",
            parallel="jit",
            mesh=(("data", -1), ("model", 1)),
            data=dict(name="digits", dir="", shape=(8, 8, 1), levels=17, train_split="", test_split=""),
            autoencoder=dict(kind="linear", code=32),
            sampling=dict(sampler="", steps=1),  # nothing can be sampled
            evaluation=dict(
                batch_size=297,
                num_examples=0,
                probe="logistic",  # of the codes, beside the pixels: "logistic", "svm", or "" for none
            ),
            training=dict(
                steps=2000,
                batch_size=100,
                learning_rate=1e-2,
                warmup=100,
                grad_clip=0.0,
                ema_decay=0.995,
                flip=False,
                seed=0,
                log_every=200,
                eval_every=0,
                save_every=1000,
                keep_every=0,
                accumulate=1,
                on_bad_step="stop",
                grad_limit=0.0,
                data_timeout=600.0,
            ),
        )
    )
