"""The tfrecord conversion against a TFRecord writer made here from the format's definition; the download command."""

import http.server
import itertools
import json
import re
import shlex
import shutil
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from tiny_sets import config

from diffjax.data import load, prepare
from diffjax.data.tfrecord import masked_crc32c, read_records
from diffjax.errors import InputError

ROOT = Path(__file__).parents[2]


def masked(message):
    """Bit by bit, by the definition of a reflected CRC."""
    crc = 0xFFFFFFFF
    for byte in message:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def framed(payload):
    length = struct.pack("<Q", len(payload))
    return length + struct.pack("<I", masked(length)) + payload + struct.pack("<I", masked(payload))


def records(path):
    from array_record.python.array_record_module import ArrayRecordReader

    return ArrayRecordReader(str(path)).read_all()


def snapshot(directory):
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in directory.iterdir()}


@pytest.fixture
def tfrecord(tiny, tmp_path):
    """tiny_flat as TensorFlow would have prepared it, its train split in two shards."""
    source = tiny / "tiny_flat" / "1.2.0"
    target = tmp_path / "tfds" / "tiny_flat" / "1.2.0"
    target.mkdir(parents=True)
    train = records(source / "tiny_flat-train.array_record-00000-of-00001")
    test = records(source / "tiny_flat-test.array_record-00000-of-00001")
    for name, part in (("train", train[:13]), ("train", train[13:]), ("test", test)):
        shard = f"{0 if part[0] in (train[0], test[0]) else 1:05}-of-{2 if name == 'train' else 1:05}"
        (target / f"tiny_flat-{name}.tfrecord-{shard}").write_bytes(b"".join(map(framed, part)))
    info = json.loads((source / "dataset_info.json").read_text())
    info["fileFormat"] = "tfrecord"
    for split in info["splits"]:
        split["shardLengths"] = ["13", "7"] if split["name"] == "train" else ["7"]
    (target / "dataset_info.json").write_text(json.dumps(info))
    shutil.copy(source / "features.json", target)
    return target


def test_crc_known_value_and_definition():
    # The check value of CRC-32C (RFC 3720's polynomial; every catalogue of CRCs): "123456789" -> e3069283.
    check = 0xE3069283
    assert masked_crc32c([b"123456789"])[0] == ((check >> 15 | check << 17) + 0xA282EAD8) & 0xFFFFFFFF
    rng = np.random.default_rng(0)
    messages = [rng.bytes(n) for n in (0, 1, 2, 3, 4, 5, 8, 31, 257, 1000)]
    assert masked_crc32c(messages).tolist() == [masked(m) for m in messages]


def test_records_come_back_in_groups(tmp_path, monkeypatch):
    monkeypatch.setattr("diffjax.data.tfrecord._GROUP_BYTES", 100)
    rng = np.random.default_rng(0)
    payloads = [rng.bytes(n) for n in rng.integers(0, 60, 40)]
    (tmp_path / "x").write_bytes(b"".join(map(framed, payloads)))
    groups = list(read_records(tmp_path / "x"))
    assert len(groups) > 5 and list(itertools.chain(*groups)) == payloads


def test_conversion_keeps_the_records_and_the_original(tfrecord, tiny, tmp_path):
    before = snapshot(tfrecord)
    target = prepare.from_tfrecord(tfrecord, tmp_path / "new")
    assert target == tmp_path / "new" / "tiny_flat" / "1.2.0" and snapshot(tfrecord) == before
    source = tiny / "tiny_flat" / "1.2.0"
    shards = [records(target / f"tiny_flat-train.array_record-0000{i}-of-00002") for i in (0, 1)]
    assert [len(s) for s in shards] == [13, 7]
    assert list(itertools.chain(*shards)) == records(source / "tiny_flat-train.array_record-00000-of-00001")
    for split in ("train", "test"):
        a, b = (load(config("tiny_flat", d), split) for d in (tmp_path / "new", tiny))
        for key in ("image", "label"):
            np.testing.assert_array_equal(a.gather(np.arange(len(a)))[key], b.gather(np.arange(len(b)))[key])
    assert [p.name for p in target.parent.iterdir()] == ["1.2.0"]
    with pytest.raises(InputError, match="exists"):
        prepare.from_tfrecord(tfrecord, tmp_path / "new")
    with pytest.raises(InputError, match="exists"):  # also over the original itself
        prepare.from_tfrecord(tfrecord, tmp_path / "tfds")
    with pytest.raises(InputError, match="array_record"):
        prepare.from_tfrecord(target, tmp_path / "newer")
    with pytest.raises(InputError, match="DIR/NAME/VERSION"):
        prepare.from_tfrecord(tfrecord.parent, tmp_path / "newer")


def test_real_records_survive_a_round_trip(real, tmp_path):
    originals = records(real / "mnist" / "3.0.1" / "mnist-test.array_record-00000-of-00001")[:200]
    (tmp_path / "x").write_bytes(b"".join(map(framed, originals)))
    prepare._convert(tmp_path / "x", tmp_path / "y")
    assert records(tmp_path / "y") == originals


@pytest.mark.parametrize(
    ("at", "words"),
    [(0, "damaged"), (5, "damaged"), (9, "damaged"), (40, "damaged"), (-1, "damaged"), (None, "cut short")],
)
def test_damage_is_noticed_and_leaves_nothing(tfrecord, tmp_path, at, words):
    path = tfrecord / "tiny_flat-train.tfrecord-00001-of-00002"
    data = bytearray(path.read_bytes())
    if at is None:
        data = data[:-30]
    else:
        data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=words):
        prepare.from_tfrecord(tfrecord, tmp_path / "new")
    assert list((tmp_path / "new" / "tiny_flat").iterdir()) == []


def test_a_missing_shard_is_noticed(tfrecord, tmp_path):
    (tfrecord / "tiny_flat-train.tfrecord-00001-of-00002").unlink()
    with pytest.raises(InputError, match="20"):
        prepare.from_tfrecord(tfrecord, tmp_path / "new")


def test_the_command_in_the_sentence_works(tfrecord):
    """From the error to the data by following the error's own words."""
    with pytest.raises(InputError) as error:
        load(config("tiny_flat", tfrecord.parents[1]), "train")
    command = re.search("`(.*)`", str(error.value))[1]
    directory = re.search("data.dir='(.*)'", str(error.value))[1]
    words = shlex.split(command)
    assert words[0] == "python"
    subprocess.run([sys.executable, *words[1:]], cwd=ROOT, check=True, capture_output=True)
    assert len(load(config("tiny_flat", directory), "train")) == 20


def test_an_info_file_from_before_other_formats_means_tfrecord(tfrecord, tmp_path):
    info = json.loads((tfrecord / "dataset_info.json").read_text())
    del info["fileFormat"]
    (tfrecord / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(InputError, match="--from-tfrecord="):
        load(config("tiny_flat", tfrecord.parents[1]), "train")
    prepare.from_tfrecord(tfrecord, tmp_path / "new")
    assert len(load(config("tiny_flat", tmp_path / "new"), "test")) == 7


def test_download_prepares_what_load_reads(builders, tmp_path):
    path = prepare.download("tiny_flat", tmp_path)
    assert path == tmp_path / "tiny_flat" / "1.2.0"
    assert len(load(config("tiny_flat", tmp_path), "train")) == 20
    before = snapshot(path)
    assert prepare.download("tiny_flat", tmp_path) == path and snapshot(path) == before


def test_download_says_what_is_missing(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="unknown"):
        prepare.download("nosuchset", tmp_path)
    with pytest.raises(InputError, match="must name one of the configs"):
        prepare.download("celeb_a_hq", tmp_path)
    with pytest.raises(InputError, match=r"place its files in .*downloads/manual .*tar"):
        prepare.download("celeb_a_hq/256", tmp_path)
    monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install tensorflow-cpu"):
        prepare.download("cifar10", tmp_path)
    # TensorFlow is there or not: LSUN's records are in LMDB, which TFDS reads with another package.
    monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda name: None if name == "tensorflow_io" else True)
    with pytest.raises(
        InputError, match=r"tensorflow_io, .* in one of its own.*builder\('lsun/bedroom', data_dir='/.*folder"
    ):
        prepare.download("lsun/bedroom", tmp_path)
    monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda name: True)

    def refuse(request, timeout):
        assert request.full_url.startswith("https://www.cs.toronto.edu/") and timeout <= 10
        raise OSError("no route")

    monkeypatch.setattr(prepare.urllib.request, "urlopen", refuse)
    with pytest.raises(InputError, match=r"Cannot reach https://www.cs.toronto.edu.*no route"):
        prepare.download("cifar10", tmp_path)


def test_a_host_that_answers_is_reached_even_if_it_answers_no(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)  # 501 to everything
    url = f"http://127.0.0.1:{server.server_port}/x"
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    prepare._reach(url)
    thread.join()
    server.server_close()
    with pytest.raises(InputError, match="Cannot reach"):
        prepare._reach(url)


@pytest.mark.fast(1)
@pytest.mark.parametrize("arguments", [[], ["mnist", "--from-tfrecord=x"], ["--from-tfrecord=/no/such"], ["nosuchset"]])
def test_command_line_errors_are_one_sentence(arguments):
    run = subprocess.run(
        [sys.executable, "-m", "diffjax.data.prepare", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode != 0 and "error:" in run.stderr and "Traceback" not in run.stderr
