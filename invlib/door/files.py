"""Files: one guard for everything that is read, one writer for everything that must be whole."""

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from invlib.errors import InputError, first_line, is_full

PASSED_ON = (InputError, KeyboardInterrupt, SystemExit, GeneratorExit)  # what no guard of a library touches


@contextmanager
def guarded(problem: str, fix: str) -> Iterator[None]:
    """Whatever a library raises becomes one `InputError`: "problem (what it said); fix".

    Libraries in Rust raise classes that are no Exceptions when they panic.
    """
    try:
        yield
    except PASSED_ON:
        raise
    except BaseException as error:
        raise InputError(f"{problem} ({first_line(error)}); {fix}") from error


@contextmanager
def reading(path: str | Path, problem: str, fix: str, *, most: int | None = None) -> Iterator[None]:
    """The guard of everything that reads a file: "PATH problem (what it said); fix". most: bytes it may have.

    What is no regular file is refused before it is opened: a pipe would wait for ever.
    """
    with guarded(f"{path} {problem}", fix):
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise OSError("it is no regular file")
        if most is not None and found.st_size > most:
            raise OSError(f"it has {found.st_size:,} bytes, at most {most:,} are read")
        yield


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """The guard of everything that writes: an `InputError` when the disk is full or the place cannot be written."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:  # torch and safetensors wrap the OSError
        folder = next(own for own in path.parents if own.is_dir())
        full = is_full(error) or shutil.disk_usage(folder).free < 2**16
        told = f"{path} could not be written: {'the disk is full' if full else first_line(error)}"
        raise InputError(f"{told}; the previous file is untouched, make room and run again") from error


def write_atomically(path: Path, write_to: Callable[[Path], Any]) -> None:
    """Write beside `path`, in a folder that is made where it is missing, flush to disk, then replace it in one step.

    Raises `InputError` when the disk is full or the folder cannot be written; `path` is then as it was.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_to(partial)
            with open(partial, "rb") as file:
                os.fsync(file.fileno())
            os.replace(partial, path)
    finally:
        if partial.is_file():  # its folder may be none
            partial.unlink()


def make_folder(folder: Path) -> None:
    """Make a folder for results, or say in one line why it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made into a folder: {error.strerror}; choose another one") from None


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 in one step. Raises what `write_atomically` raises."""
    write_atomically(path, lambda partial: Path(partial).write_text(text, encoding="utf-8"))


def check_sums(folder: Path) -> None:
    """Compare the files of a folder with its SHA256SUMS, where it has one, as those that are bundled do."""
    sums = folder / "SHA256SUMS"
    if not sums.is_file():
        return
    with reading(sums, "is no list of SHA-256 sums", "make it with sha256sum", most=2**16):
        lines = [line.split() for line in sums.read_text().splitlines()]
        for expected, name in lines:
            with open(folder / Path(name).name, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                    raise InputError(f"{folder / name} is not the file that {sums} was made of; fetch it again")
