"""Files of PyTorch, written here by the standard library in both of their formats, and programs in their place."""

import io
import os
import pickle
import struct
import subprocess
import sys
import types
import zipfile
from collections import OrderedDict
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.errors import InputError
from diffjax.nets.torch_files import read_tensors

MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {"f8": "Double", "f4": "Float", "f2": "Half", "i8": "Long", "i4": "Int", "u1": "Byte", "b1": "Bool"}


class Storage(NamedTuple):
    data: np.ndarray


class Tensor(NamedTuple):
    """What torch.save sees: a view of the numbers of a storage, which several tensors may share."""

    storage: Storage
    offset: int
    size: tuple
    stride: tuple


def tensor(data, offset, size, stride):
    return Tensor(Storage(data), offset, size, stride)


def whole(array):
    array = np.asarray(array)
    strides = tuple(step // array.itemsize for step in array.strides)
    return tensor(array.ravel(order="K"), 0, array.shape, strides)


class Writer(pickle.Pickler):
    """Names PyTorch's functions and classes as torch.save does, without PyTorch."""

    def __init__(self, stream, protocol, is_archive):
        super().__init__(stream, protocol)
        self.view, self.storages = () if is_archive else (None,), {}

    def reducer_override(self, thing):
        if isinstance(thing, Tensor):
            return sys.modules["torch._utils"]._rebuild_tensor_v2, (*thing, False, OrderedDict())
        return NotImplemented

    def persistent_id(self, thing):
        if not isinstance(thing, Storage):
            return None
        key, data = str(id(thing.data)), thing.data
        self.storages[key] = data
        name = "BFloat16" if data.dtype == jnp.bfloat16 else STORAGES[data.dtype.str[1:]]
        return ("storage", getattr(sys.modules["torch"], f"{name}Storage"), key, "cpu", data.size, *self.view)


@pytest.fixture
def fake_torch(monkeypatch):
    """Modules that have PyTorch's names, which a pickler looks for when it writes them."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    utils._rebuild_tensor_v2 = lambda *args: None
    utils._rebuild_tensor_v2.__module__, utils._rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    for name in (*STORAGES.values(), "BFloat16"):
        setattr(torch, f"{name}Storage", type(f"{name}Storage", (), {"__module__": "torch"}))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


def archive(path, program, storages):
    """The format since PyTorch 1.6."""
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("weights/data.pkl", program)
        out.writestr("weights/byteorder", "little")
        for key, data in storages.items():
            out.writestr(f"weights/data/{key}", data.tobytes())
        out.writestr("weights/version", "3\n")


def stream(path, program, storages):
    """The format before."""
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    with open(path, "wb") as out:
        out.write(b"".join(pickle.dumps(thing, 2) for thing in (MAGIC, 1001, machine)))
        out.write(program + pickle.dumps(list(storages), 2))
        for data in storages.values():
            out.write(struct.pack("<q", data.size) + data.tobytes())


FORMATS = pytest.mark.parametrize("write", [archive, stream])


def save(write, path, thing, protocol=2):
    out = io.BytesIO()
    writer = Writer(out, protocol, write is archive)
    writer.dump(thing)
    write(path, out.getvalue(), writer.storages)
    return path


@FORMATS
@pytest.mark.parametrize("protocol", [2, 4])
def test_tensors_of_both_formats_are_read(tmp_path, fake_torch, write, protocol):
    rng = np.random.default_rng(0)
    shared = rng.standard_normal(20).astype("f4")
    want = {
        "single": rng.standard_normal((3, 4, 2)).astype("f4"),
        "transposed": rng.standard_normal((3, 5)).T,
        "half": rng.standard_normal(3).astype("f2"),
        "brain": rng.standard_normal(5).astype(jnp.bfloat16),
        "count": np.array(2**40),
        "mask": rng.standard_normal(9) > 0,
        "bytes": np.arange(250, 255, dtype="u1"),
    }
    saved = OrderedDict({name: whole(array) for name, array in want.items()})
    saved["part"], want["part"] = tensor(shared, 3, (2, 3), (8, 2)), shared[3:19].reshape(2, 8)[:, :6:2]
    saved["repeated"], want["repeated"] = tensor(shared, 19, (2, 2), (0, 0)), np.full((2, 2), shared[19])
    saved["none"], want["none"] = tensor(shared, 20, (0, 4), (4, 1)), np.zeros((0, 4), "f4")
    saved._metadata = {"": {"version": 1}}  # which PyTorch writes too
    found = read_tensors(save(write, tmp_path / "weights.pth", saved, protocol))
    assert list(found) == list(want)
    for name, array in want.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@FORMATS
def test_a_state_dict_beside_other_things_is_found_where_there_is_one(tmp_path, fake_torch, write):
    path, state = tmp_path / "a.pt", {"w": whole(np.ones(2, "f4"))}
    for saved in ({"state_dict": state, "epoch": 3, "optimizer": {"state": {0: state}}}, {"w": state["w"], "step": 3}):
        np.testing.assert_array_equal(read_tensors(save(write, path, saved))["w"], np.ones(2))
    for saved, says in (
        ({"model": state, "ema": state}, r"2 state_dicts \(model, ema\); save the one"),
        ({**state, "model": state}, r"2 state_dicts \(the file, model\)"),
        ({"epoch": 3}, "no tensors by name"),
        ([state["w"]], "no tensors by name"),
    ):
        with pytest.raises(InputError, match=says):
            read_tensors(save(write, path, saved))


class Calls:
    """Pickled as a call of any function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def programs(path):
    """Pickles that make a file at `path`, each by other opcodes, and the name that each must not be given."""
    command = f"touch {path}"
    text = command.encode()
    yield from ((pickle.dumps(Calls(os.system, command), n), r"\.system") for n in range(6))  # GLOBAL, STACK_GLOBAL
    yield pickle.dumps(Calls(eval, f"open({str(path)!r}, 'w')"), 2), "__builtin__.eval"
    yield pickle.dumps(Calls(subprocess.Popen, ["touch", str(path)]), 4), "subprocess.Popen"
    yield b"(S'" + text + b"'\nios\nsystem\n.", "os.system"  # INST
    yield b"(cos\nsystem\nS'" + text + b"'\no.", "os.system"  # OBJ
    yield b"\x80\x02csubprocess\nPopen\n(X\x05\x00\x00\x00touch" + b"ta\x81.", "subprocess.Popen"  # NEWOBJ
    hidden = OrderedDict(w=1.0, evil=Calls(os.system, command))
    yield pickle.dumps(hidden, 2), r"\.system"
    yield b"cbuiltins\ngetattr\n.", "builtins.getattr"
    yield b"cdiffjax.nets.torch_files\nos.system\n.", r"torch_files\.os\.system"


@FORMATS
def test_a_program_is_refused_by_name_and_never_runs(tmp_path, write):
    made, path = tmp_path / "made", tmp_path / "weights.pth"
    for program, name in programs(made):
        write(path, program, {})
        with pytest.raises(InputError, match=rf"weights\.pth.*{name}") as refused:
            read_tensors(path)
        assert "so it was not run" in str(refused.value) and not made.exists()


def test_a_program_is_refused_wherever_it_stands_in_the_older_format(tmp_path):
    made, path = tmp_path / "made", tmp_path / "weights.pth"
    parts = [pickle.dumps(thing, 2) for thing in (MAGIC, 1001, {}, OrderedDict(), [])]
    for place in range(len(parts)):
        evil = pickle.dumps(Calls(os.system, f"touch {made}"), 2)
        path.write_bytes(b"".join([*parts[:place], evil, *parts[place + 1 :]]))
        with pytest.raises(InputError, match=r"\.system, which weights do not need"):
            read_tensors(path)
        assert not made.exists()


@FORMATS
def test_what_a_pickle_does_to_the_functions_it_is_given_ends_with_it(tmp_path, fake_torch, write):
    """BUILD sets attributes: of a function its defaults, of a class its methods."""
    path = tmp_path / "weights.pth"
    for given in (b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n", b"ctorch\nSize\n"):
        for name in (b"__defaults__", b"__new__", b"items", b"values", b"__kwdefaults__"):
            write(path, given + b"(N(S'" + name + b"'\n(tdtb.", {})
            with pytest.raises(InputError):
                read_tensors(path)
    saved = OrderedDict(w=whole(np.arange(6, dtype="f4").reshape(2, 3)))
    np.testing.assert_array_equal(read_tensors(save(write, path, saved))["w"], [[0, 1, 2], [3, 4, 5]])


@FORMATS
def test_a_tensor_outside_of_its_storage_is_refused(tmp_path, fake_torch, write):
    data, path = np.arange(10, dtype="f4"), tmp_path / "weights.pth"
    for offset, size, stride in (
        (8, (3,), (1,)),
        (0, (2, 6), (5, 1)),
        (11, (), ()),
        (-1, (2,), (1,)),
        (9, (3,), (-1,)),
        (0, (2,), (2**61,)),
        (2**62, (2**3,), (2**62,)),
        (0, (-1,), (1,)),
        (0, (2, 2), (1,)),
        (0, (2.0,), (1,)),
        (0, "12", (1, 1)),
        (0, 3, 1),
    ):
        with pytest.raises(InputError, match=r"weights\.pth"):
            read_tensors(save(write, path, OrderedDict(w=tensor(data, offset, size, stride))))
    with pytest.raises(InputError, match="w ends at element 0 of a storage of 0; the file is damaged"):
        read_tensors(save(write, path, OrderedDict(w=tensor(data[:0], 0, (1,), (1,)))))


@FORMATS
def test_a_file_cut_anywhere_is_an_error(tmp_path, fake_torch, write):
    path = save(write, tmp_path / "weights.pth", OrderedDict(w=whole(np.arange(3.0)), b=whole(np.ones(1, "f4"))))
    content = path.read_bytes()
    assert len(read_tensors(path)) == 2
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"weights\.pth (is|holds)"):
            read_tensors(path)


def test_arrays_of_other_formats_are_read(tmp_path, monkeypatch):
    numpy = pytest.importorskip("safetensors.numpy")
    want = {"a.weight": np.arange(6, dtype="f4").reshape(2, 3), "n": np.array(7)}
    np.savez(tmp_path / "a.npz", **want)
    numpy.save_file(want, tmp_path / "a.safetensors")
    for path in (tmp_path / "a.npz", str(tmp_path / "a.safetensors")):
        found = read_tensors(path)
        assert set(found) == set(want)
        for name, array in want.items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == array.dtype
    for path in (tmp_path / "a.npz", tmp_path / "a.safetensors"):
        path.write_bytes(path.read_bytes()[:-9])
        with pytest.raises(InputError, match=rf"{path} is truncated, or no {path.suffix} file"):
            read_tensors(path)
    made = tmp_path / "made"
    np.savez(tmp_path / "b.npz", w=np.array([Calls(os.system, f"touch {made}")], dtype=object))
    with pytest.raises(InputError, match=r"b\.npz"):
        read_tensors(tmp_path / "b.npz")
    assert not made.exists()
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(InputError, match=r"safetensors.numpy is not installed.*pip install 'diffjax\[weights\]'"):
        read_tensors(tmp_path / "a.safetensors")


def test_what_is_no_file_of_weights_is_named(tmp_path):
    (tmp_path / "notes.pth").write_text("weights will be here")
    (tmp_path / "notes.txt").write_text("weights will be here")
    (tmp_path / "other.pth").write_bytes(pickle.dumps(1) + pickle.dumps(2))
    with zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("weights/data.pkl", bytes(10_000))
    with zipfile.ZipFile(tmp_path / "big.pth", "w") as out:
        out.writestr("weights/data.pkl", pickle.dumps({}))
        out.writestr("weights/byteorder", "big")
    for name, says in (
        ("none.pth", "none.pth is no file; give the path"),
        ("", "is no file"),
        ("notes.txt", r"ends in '\.txt'; weights are read from \.npz, \.safetensors, \.pth, \.pt"),
        ("notes.pth", r"truncated, or no \.pth file of weights \(UnpicklingError"),
        ("other.pth", "PyTorch's magic number"),
        ("packed.pth", "compressed archive"),
        ("big.pth", "big-endian"),
    ):
        with pytest.raises(InputError, match=says):
            read_tensors(tmp_path / name)
    with pytest.raises(InputError, match="remote place"):
        read_tensors("gs://bucket/weights.pth")
