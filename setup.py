from setuptools import find_packages, setup

setup(
    name="diffjax",
    version="0.1.0",
    description="Diffusion, score-based and variational latent-variable models as pure functions in JAX",
    python_requires=">=3.11",  # jax 0.11 dropped Python 3.11, which takes jax 0.10
    classifiers=[f"Programming Language :: Python :: {version}" for version in ("3.11", "3.12", "3.13")],
    packages=find_packages(include=["diffjax", "diffjax.*"]),
    install_requires=[
        "absl-py",
        "array-record",
        "diffrax",
        "flax>=0.12",
        "grain",
        "importlib_resources",  # TFDS's official builders import it and do not declare it
        "jax>=0.10",  # tested with 0.10 to 0.12
        "jaxtyping",
        "matplotlib",
        "ml-collections",
        "numpy",
        "optax",
        "orbax-checkpoint",
        "pillow",
        "scikit-image",
        "scikit-learn",
        "tensorboardX",
        "tensorflow-datasets",
        "tqdm",
    ],
    extras_require={
        "test": ["arviz", "beartype", "blackjax", "equinox", "pytest", "pytest-xdist", "scipy"],
        "dev": ["mypy", "ruff"],
        "plan": ["libtpu"],  # --mode=plan --topology compiles for TPUs by it
    },
)
