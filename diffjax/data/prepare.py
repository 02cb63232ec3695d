"""python -m diffjax.data.prepare NAME [--dir=DIR]: download a TFDS set and write it as array_record.
python -m diffjax.data.prepare --from-tfrecord=DIR/NAME/VERSION --dir=OTHER: rewrite a set prepared with TensorFlow.

The first command needs TensorFlow for most sets, because TFDS unpacks archives and encodes images with it. The second
needs no TensorFlow: the records of both formats are the same bytes. Reading the result never needs TensorFlow. LSUN
needs its own environment, which this command describes.
"""

import argparse
import importlib.util
import json
import os
import shutil
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from diffjax.data.sources import check_name, data_dir, find_prepared, read_info
from diffjax.data.tfrecord import read_records
from diffjax.errors import InputError
from diffjax.extras import needs_run

# Version 0.37.1 of tensorflow_io, the last, goes with TensorFlow 2.16, and that with older numpy and protobuf than jax
# and today's tensorflow-metadata.
LSUN = (
    "TFDS reads {name} with the package tensorflow_io, which has no version for this environment: in one of its own, of"
    " Python 3.12 or older, run `pip install 'tensorflow-io[tensorflow-cpu]' 'tensorflow-metadata<1.16'"
    ' tensorflow-datasets importlib_resources`, and then `python -c "import tensorflow_datasets as t;'
    " t.builder('{name}', data_dir='{directory}').download_and_prepare(file_format='array_record')\"`, or give"
    " the images as files with data.name='folder'."
)


def download(name: str, directory: Path) -> Path:
    """Downloads and prepares a TFDS set as array_record, unless it is already prepared. Returns its directory.

    Raises `InputError` if the name is unknown, if TensorFlow or the network is missing, or if files are missing that
    you must download by hand.
    """
    if (path := find_prepared(directory, name)) is not None:
        return path
    check_name(name)
    with needs_run():
        import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=directory)
    manual = directory / "downloads" / "manual"
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and not (manual.is_dir() and any(manual.iterdir())):
        instructions = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
        raise InputError(f"{name} cannot be downloaded by a program: place its files in {manual} ({instructions})")
    if builder.name == "lsun" and importlib.util.find_spec("tensorflow_io") is None:
        raise InputError(LSUN.format(name=name, directory=directory))
    urls = list(builder.url_infos or ())
    if (urls or builder.MANUAL_DOWNLOAD_INSTRUCTIONS) and importlib.util.find_spec("tensorflow") is None:
        raise InputError(
            f"TFDS unpacks {name} with TensorFlow: run `pip install tensorflow-cpu` (only this command needs it),"
            " or copy a set prepared elsewhere and use --from-tfrecord."
        )
    if urls:
        _reach(urls[0])
    try:
        builder.download_and_prepare(file_format="array_record")
    except ImportError as error:
        raise InputError(f"TFDS's builder of {name} needs a package that is not installed: {error}.") from error
    return Path(builder.data_path)


def from_tfrecord(source: Path, directory: Path) -> Path:
    """Converts a set in `source` from tfrecord to array_record, under `directory`. Returns the new set's directory.

    The new directory appears complete or not at all. `source` is only read.
    Raises `InputError` if source is not a set in tfrecord or is damaged, or if the new directory exists.
    """
    with needs_run():
        from tqdm import tqdm

    if not (source / "dataset_info.json").is_file():
        raise InputError(f"--from-tfrecord={source} has no dataset_info.json: name a directory DIR/NAME/VERSION.")
    info = read_info(source / "dataset_info.json")
    shards = sorted(source.glob("*.tfrecord-*"))
    if info["fileFormat"] != "tfrecord" or not shards:
        raise InputError(
            f"--from-tfrecord={source} is prepared as {info['fileFormat']} with {len(shards)} tfrecord files."
        )
    target = directory / info["name"] / info.get("configName", "") / info["version"]
    if target.exists():
        raise InputError(f"{target} exists: choose another --dir or remove it.")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix="incomplete.", dir=target.parent))
    try:
        count = sum(_convert(s, temporary / s.name.replace(".tfrecord-", ".array_record-")) for s in tqdm(shards))
        expected = sum(int(n) for split in info["splits"] for n in split.get("shardLengths", []))
        if count != expected:
            raise InputError(f"{source} has {count} records where dataset_info.json says {expected}: copy it again.")
        for path in source.iterdir():
            if path not in shards and path.is_file():
                shutil.copyfile(path, temporary / path.name)
        (temporary / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "array_record"}, indent=2))
        temporary.chmod(0o755)  # mkdtemp's 0o700 would hide a shared set from other users
        os.rename(temporary, target)
    except BaseException:
        shutil.rmtree(temporary)
        raise
    return target


def _convert(source: Path, target: Path) -> int:
    with needs_run():
        from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

    count = 0
    writer = ArrayRecordWriter(str(target), "group_size:1")  # TFDS's own setting: each record can be read alone
    for records in read_records(source):
        for record in records:
            writer.write(record)
        count += len(records)
    writer.close()
    if ArrayRecordReader(str(target)).num_records() != count:
        raise OSError(f"{target} was not written completely.")
    return count


def _reach(url: str) -> None:
    """Checks once that the host answers, because TFDS would retry for minutes. Raises `InputError`."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=10).close()
    except urllib.error.HTTPError:
        pass  # the host answered, and may only dislike the question
    except OSError as error:
        raise InputError(f"Cannot reach {url} ({error}): run this command on a machine with network.") from error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help="a TFDS name such as cifar10, celeb_a_hq/256 or lsun/bedroom")
    parser.add_argument("--from-tfrecord", type=Path, help="a set prepared with TensorFlow: DIR/NAME/VERSION")
    parser.add_argument("--dir", default="", help="where to write (default: $TFDS_DATA_DIR or ~/tensorflow_datasets)")
    options = parser.parse_args()
    if (options.name is None) == (options.from_tfrecord is None):
        parser.error("give either NAME or --from-tfrecord")
    directory = data_dir(options.dir)
    try:
        if options.name is not None:
            print(download(options.name, directory))
        else:
            print(from_tfrecord(options.from_tfrecord, directory))
    except InputError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
