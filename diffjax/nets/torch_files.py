"""Reads files of weights as arrays by name, from .npz, .safetensors and PyTorch's .pth. It does not need PyTorch.

A PyTorch file is a pickle, and a pickle is a program that may call any function. This reader runs only pickles that
call the functions in `CALLS`. These are our own, and only note a tensor's shape and place. Any other name is refused
before anything is called. The numbers are outside the pickle, as little-endian bytes ("storages"):

    since 1.6    a zip archive: NAME/data.pkl, and NAME/data/KEY for each storage
    before       one stream of pickles: magic number, version, the writer's machine, the tensors, the list of KEYs;
                 then each storage: its number of elements (8 bytes), and the elements

    tensor[i_1, ..., i_n] = storage[offset + Σ_k stride_k i_k]
"""

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from diffjax.errors import InputError
from diffjax.extras import needs_weights
from diffjax.paths import local

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
TYPES = {
    "torch.DoubleStorage": "float64",
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
}


class Storage(NamedTuple):
    dtype: str
    key: str


class Tensor(NamedTuple):
    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


CALLS: dict[str, Callable] = {
    "torch._utils._rebuild_tensor": Tensor,
    "torch._utils._rebuild_tensor_v2": lambda storage, offset, size, stride, *_: Tensor(storage, offset, size, stride),
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "torch.Size": tuple,
}


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a file of weights, by their names in the file. Nothing in the file is executed.

    Args:
      path: a file that ends in .npz, .safetensors (needs the extra `weights`), .pth, .pt or .bin. A PyTorch file holds
        a state_dict, or a dict with one state_dict under any name, such as {"state_dict": ..., "epoch": 3}.

    Returns:
      arrays in the file's shapes and types; those of PyTorch files are read-only.

    Raises:
      InputError: the file does not exist, is truncated or of another format, holds several state_dicts, or its pickle
        asks for more than tensors.
    """
    file = local(path, "path")
    if not file.is_file():
        raise InputError(f"{file} is no file; give the path of a file of weights")
    if file.suffix not in READERS:
        raise InputError(f"{file} ends in {file.suffix!r}; weights are read from {', '.join(READERS)}")
    try:
        return READERS[file.suffix](file)
    except InputError:
        raise
    except Exception as error:  # the libraries raise all kinds of errors for broken files
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"{file} is truncated, or no {file.suffix} file of weights ({what})") from error


def _numpy(file: Path) -> dict[str, np.ndarray]:
    with open(file, "rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        return dict(arrays)


def _safetensors(file: Path) -> dict[str, np.ndarray]:
    with needs_weights():
        from safetensors.numpy import load_file
    return load_file(file)


def _torch(file: Path) -> dict[str, np.ndarray]:
    with open(file, "rb") as stream:
        is_archive = stream.read(4) == b"PK\x03\x04"
    found, storages = _archive(file) if is_archive else _stream(file)
    return {name: _array(file, name, tensor, storages) for name, tensor in _tensors(file, found).items()}


READERS = {".npz": _numpy, ".safetensors": _safetensors, ".pth": _torch, ".pt": _torch, ".bin": _torch}


class Unpickler(pickle.Unpickler):
    """Notes the tensors of a pickle, and the storages that they need."""

    def __init__(self, file: Path, stream: Any):
        super().__init__(stream)
        self.file, self.storages = file, dict[str, Storage]()

    def find_class(self, module: str, name: str) -> Any:
        whole = f"{module}.{name}"
        if whole == "collections.OrderedDict":
            return OrderedDict
        if whole in TYPES:
            return TYPES[whole]  # a string, which a pickle cannot call
        if whole in CALLS:
            return lambda *args: CALLS[whole](*args)  # a new object, because a pickle can modify what it is given
        raise InputError(
            f"{self.file} asks for {whole}, which weights do not need, so it was not run; save the tensors alone, with"
            " torch.save(model.state_dict(), path)"
        )

    def persistent_load(self, identity: Any) -> Storage:
        kind, dtype, key, _, _, *view = identity
        if kind != "storage" or dtype not in TYPES.values() or view not in ([], [None]):
            raise InputError(f"{self.file} holds {kind!r} of {dtype!r}, not plain tensors; save the state_dict alone")
        self.storages[key] = Storage(dtype, key)
        return self.storages[key]


def _archive(file: Path) -> tuple[Any, dict[str, bytes]]:
    """The object in the pickle of a zip archive, and the bytes of the storages by key."""
    with zipfile.ZipFile(file) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise InputError(f"{file} is a compressed archive, which PyTorch does not write; unpack it first")
        names = archive.namelist()
        [root] = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise InputError(f"{file} was written on a big-endian machine; save it again on a little-endian one")
        unpickler = Unpickler(file, io.BytesIO(archive.read(f"{root}data.pkl")))
        found = unpickler.load()
        return found, {key: archive.read(f"{root}data/{key}") for key in unpickler.storages}


def _stream(file: Path) -> tuple[Any, dict[str, bytes]]:
    """The object in the fourth pickle of the older format, and the bytes of the storages by key."""
    with open(file, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if (Unpickler(file, stream).load(), Unpickler(file, stream).load()) != (MAGIC, VERSION):
            raise InputError(f"{file} is no file of PyTorch: it does not begin with PyTorch's magic number")
        Unpickler(file, stream).load()  # the writer's machine; not needed: storages are always little-endian
        unpickler = Unpickler(file, stream)
        found = unpickler.load()
        storages = {}
        for key in Unpickler(file, stream).load():
            [count] = struct.unpack("<Q", stream.read(8))
            length = count * _type(unpickler.storages[key]).itemsize
            if length > size - stream.tell():
                raise InputError(f"{file} is truncated: storage {key!r} has {count} elements, more than the file holds")
            storages[key] = stream.read(length)
        return found, storages


def _tensors(file: Path, found: Any) -> dict[str, Tensor]:
    """The tensors of the state_dict, which is `found` itself or the only state_dict among its values."""
    nested = {"the file": found} | (found if isinstance(found, dict) else {})
    states = {name: value for name, value in nested.items() if isinstance(value, dict) and _any_tensor(value)}
    if len(states) != 1:
        which = f"{len(states)} state_dicts ({', '.join(map(str, states))})" if states else "no tensors by name"
        raise InputError(f"{file} holds {which}; save the one that you mean by itself")
    [state] = states.values()
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def _any_tensor(values: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, Tensor) for value in values.values())


def _array(file: Path, name: str, tensor: Tensor, storages: Mapping[str, bytes]) -> np.ndarray:
    storage, offset, size, stride = tensor
    dtype, data = _type(storage), storages[storage.key]
    if len(size) != len(stride) or any(type(n) is not int or n < 0 for n in (offset, *size, *stride)):
        raise InputError(f"{file}: {name} has size {size}, stride {stride} and offset {offset}, which is no tensor")
    if 0 in size:
        return np.zeros(size, dtype)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if (there := len(data) // dtype.itemsize) <= last:
        raise InputError(f"{file}: {name} ends at element {last} of a storage of {there}; the file is damaged")
    return np.ndarray(size, dtype, data, offset * dtype.itemsize, [step * dtype.itemsize for step in stride])


def _type(storage: Storage) -> np.dtype:
    return np.dtype(jnp.bfloat16 if storage.dtype == "bfloat16" else storage.dtype)
