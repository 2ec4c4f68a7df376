"""Make the file of a killed writer readable again.

A writer that was killed leaves its file marked as being written, and HDF5
refuses it ("file is already open for write"). Since it was in SWMR mode, all
images counted so far are in it. :func:`repair` takes the mark out of the
superblock, sets the end of the file, and records in the file what happened. That
is what ``h5clear -s -i 0`` does, here without the HDF5 tools, for our files
alone, and not for one that is still being written. The DAQ does it by itself
when it loses a writer; by hand it is ``std-daq-ioc repair FILE…``.

Before anything is changed the file is looked at as if it had been closed (``daq_core.files.left_open``),
never in a mode in which HDF5 waits for what a damaged file does not have. Whoever repairs a file
that may be damaged does it in a child with a deadline (``daq_core.files.guarded``).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import h5py
import numpy as np
from h5py import h5d

from daq_core.amounts import counted
from daq_core.files import places
from daq_core.files.layout import COLUMNS, COUNTERS, UNFINISHED, extend_present, record_state
from daq_core.files.left_open import UNREADABLE, opened_as_closed
from daq_core.files.reports import Outcome, RecordedEnd, RepairReport
from daq_core.files.roots import opened_folder
from daq_core.files.superblock import OPEN_FOR_SWMR, OPEN_FOR_WRITE, NotOurs, read_superblock


class _Refused(Exception):
    """Why a file was left alone."""


class _OpenElsewhere(_Refused):
    """Why it is left alone now."""


def repair(path: str, *, failure: str = "", run_id: str = "", roots: Sequence[str] = ("/",)) -> RepairReport:
    """Make a file that its writer could not close open again with the images counted so far.

    Its state becomes FAILED, unless the writer had recorded another one, and all
    datasets get the same number of rows. A file that is still being written is refused.
    It is opened once, and all is done by its descriptor: the path may name another file by then.

    Parameters
    ----------
    failure : what the run ended with, if that is known: a FINISHED that the writer could not make
        true, because the disk refused its very last bytes, becomes FAILED with that message
    run_id  : of the run whose file it has to be; another's, put there meanwhile, is refused. "": any
    roots   : folders that it may be in, links resolved

    Raises
    ------
    OSError         the file cannot be read or written at all: missing, no permission, disk error
    InvalidRequest  it is outside of the roots
    """
    try:
        with _locked(path, roots) as fd:
            superblock = read_superblock(fd)
            if superblock.flags not in (0, OPEN_FOR_WRITE | OPEN_FOR_SWMR):
                raise _Refused("its writer ended before the file was complete enough to be read")
            size = os.fstat(fd).st_size
            end = max(size, superblock.end_of_file)
            n_images, state = _inspect(fd, size, run_id)
            finished = state not in _untrue(failure)
            if superblock.flags == 0 and size == end and finished:
                return RepairReport(path, "intact", n_images, f"{path} needs no repair.", _end(_by(fd)))
            os.ftruncate(fd, end)  # HDF5 had reserved space, and perhaps never used it
            os.pwrite(fd, superblock.closed(end).packed(), 0)
            os.fsync(fd)
            try:
                _record(_by(fd), n_images, failure)
                recorded = _end(_by(fd))
            except UNREADABLE as error:
                raise OSError(f"its {n_images} images can be read now, but it is damaged: {error}") from error
    except (_Refused, NotOurs) as reason:
        outcome: Outcome = "open elsewhere" if isinstance(reason, _OpenElsewhere) else "refused"
        return RepairReport(path, outcome, None, f"{path} was not repaired: {reason}.")
    said = f"{path} is readable again, with {counted(n_images, 'image')}."
    return RepairReport(path, "repaired", n_images, said, recorded)


@contextmanager
def _locked(path: str, roots: Sequence[str]) -> Iterator[int]:
    """Open the file for change, while nobody else has it open.

    The lock is kept until all is done: two repairs that a hung disk lets go of at the same
    moment would spoil each other's. HDF5 is told to take none of its own.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with opened_folder(os.path.dirname(path), roots) as folder:
        fd = os.open(os.path.basename(path), flags, dir_fd=folder)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _OpenElsewhere("it is open elsewhere, perhaps still being written") from None
        except OSError:
            pass  # a file system without locks
        yield fd
    finally:
        os.close(fd)


def _untrue(failure: str) -> tuple[str, ...]:
    """Return the states that a file must not be left in."""
    return (UNFINISHED, "FINISHED") if failure else (UNFINISHED,)


def _inspect(fd: int, size: int, run_id: str) -> tuple[int, str]:
    """Return how many images the file has, and the state that its writer recorded.

    Refuse a file of another program or run, and one that does not have all images in its first `size` bytes.
    """
    try:
        with opened_as_closed(fd) as file:
            if run_id and file[places.IDENTIFIER].asstr()[()] != run_id:
                raise _Refused("it is the file of another run")
            datasets = [file[places.DATA][name] for name in ("data", *COLUMNS)]
            if max(map(_end_of_chunks, datasets)) > size:
                whole = _n_whole(datasets[0], size)
                raise _Refused(
                    "it is cut off in the middle of its images; is it an unfinished copy? "
                    f"{whole} of its {len(datasets[0])} images are whole"
                )
            return min(map(len, datasets)), file[places.STATE].asstr()[()]
    except KeyError as error:
        if "errno" in str(error):  # h5py says it so when it could not read a group
            raise _Refused(f"HDF5 cannot read it: {error}") from error
        raise _Refused("it is not a file of this DAQ") from None
    except UNREADABLE as error:
        raise _Refused(f"HDF5 cannot read it: {str(error) or type(error).__name__}") from error


def _n_whole(images: h5py.Dataset, size: int) -> int:
    """Return how many images, from the first on, are in the first `size` bytes of the file."""
    whole = np.zeros(len(images), np.bool_)

    def look_at(chunk: h5d.StoreInfo) -> None:
        if chunk.byte_offset + chunk.size <= size and chunk.chunk_offset[0] < len(whole):
            whole[chunk.chunk_offset[0]] = True

    images.id.chunk_iter(look_at)
    return int(whole.argmin()) if not whole.all() else len(whole)


def _end_of_chunks(dataset: h5py.Dataset) -> int:
    """Return the file address behind the last byte of a dataset's values; 0 for a virtual one."""
    end = 0
    if dataset.chunks is None:  # of a file over several, which is made in one go
        return end

    def look_at(chunk: h5d.StoreInfo) -> None:
        nonlocal end
        end = max(end, chunk.byte_offset + chunk.size)

    dataset.id.chunk_iter(look_at)
    return end


def _record(path: str, n_images: int, failure: str) -> None:
    """Write into the file how its run ended, and give all its datasets the same length."""
    with h5py.File(path, "r+", libver=("v110", "v110"), locking=False) as file:
        # As the writer did, so that being killed here does no harm either.
        file.swmr_mode = True
        for name in ("data", *COLUMNS):
            dataset = file[places.DATA][name]
            if len(dataset) > n_images:
                dataset.resize(n_images, axis=0)
        extend_present(file, n_images)
        if file[places.STATE].asstr()[()] in _untrue(failure):
            record_state(file, "FAILED", failure or f"ERROR: writer lost; {n_images} images recovered.")


def _end(path: str) -> RecordedEnd | None:
    """Return how a file says that its run ended; None when it does not."""
    with h5py.File(path, "r", locking=False) as file:
        try:
            return RecordedEnd(
                run_id=file[places.IDENTIFIER].asstr()[()],
                state=file[places.STATE].asstr()[()],
                message=file[places.MESSAGE].asstr()[()],
                losses=_losses(file),
            )
        except UNREADABLE:
            return None


def _losses(file: h5py.File) -> dict[str, int] | None:
    """Return what a file says that its run lost; None when its writer did not come to say it."""
    written = file[places.COUNTERS]
    counters = {name: int(written[name][()]) for name in COUNTERS if name in written}
    if min(counters.values(), default=-1) < 0:
        return None
    return counters | {"not_good_images": int(np.count_nonzero(file[places.STATUS][:]))}


def _by(fd: int) -> str:
    """Return a path by which HDF5 opens the file of a descriptor, whatever its name leads to now."""
    return f"/proc/self/fd/{fd}"
