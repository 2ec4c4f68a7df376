"""Strange surroundings: another locale, HDF5's own settings, a umask that lets everybody write, a proxy.

One service is started with all of them at once; each test is about one.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from ioc.program.ports import LOOPBACK, free_ports
from tests.machine.judges import absent
from tests.processes.service import JUNGFRAU_2, Service

NAME = "Grüße_日本.h5"
NOT_UTF8 = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
HDF5 = {
    "HDF5_DRIVER": "core",
    "HDF5_DRIVER_CONFIG": "nonsense",
    "HDF5_VOL_CONNECTOR": "no_such_connector",
    "HDF5_PLUGIN_PRELOAD": "::",
    "HDF5_VDS_PREFIX": "/nowhere",
    "HDF5_EXTFILE_PREFIX": "/nowhere",
    "HDF5_USE_FILE_LOCKING": "TRUE",
}
COMMAND = [sys.executable, "-m", "ioc"]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("service"), JUNGFRAU_2 | {"number_of_writers": 2}, {})
    proxy = {"http_proxy": f"http://{LOOPBACK}:{free_ports()}"}
    with pytest.MonkeyPatch.context() as surroundings:
        for name, value in (NOT_UTF8 | HDF5 | proxy).items():
            surroundings.setenv(name, value)
        umask = os.umask(0)
        try:
            service.start()
        finally:
            os.umask(umask)
    yield service
    service.discard()


def take_run(service: Service, path: Path, n_images: int = 4) -> None:
    answer = service.post("/writer/write_async", {"output_file": str(path), "n_images": n_images})
    assert answer["status"] == "ok", answer
    service.simulator().send(n_images, 50)
    assert service.wait_for("READY")["acquisition"]["message"] == "Completed."


def test_a_file_is_named_by_its_utf8_bytes_whatever_the_locale(service: Service) -> None:
    take_run(service, service.output / NAME)
    assert NAME.encode() in os.listdir(os.fsencode(service.output))


def test_the_files_are_hdf5_files_whatever_driver_the_environment_names(service: Service) -> None:
    """The virtual file over two parts, too."""
    path = service.output / "drivers.h5"
    take_run(service, path)
    detector = service.simulator()
    with h5py.File(path) as file:
        data = file["entry/data"]
        assert not data["status"][:].any()
        assert sorted(data["image_id"][:].tolist()) == [1, 2, 3, 4]
        for image_id, image in zip(data["image_id"][:], data["data"], strict=True):
            np.testing.assert_array_equal(image, detector.image(int(image_id)))


def test_with_a_umask_of_0_state_is_0600_and_nobody_else_may_write_any_file(service: Service) -> None:
    take_run(service, service.output / "modes.h5")
    state = Path(service.options["state_dir"])
    files = [path for path in state.rglob("*") if path.is_file()]
    assert files
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in files} == {
        path.name: 0o600 for path in files
    }
    assert stat.S_IMODE(state.stat().st_mode) & 0o022 == 0
    for path in service.output.glob("modes*.h5"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o664


@pytest.mark.parametrize("command", [["inspect"], ["repair"]])
def test_commands_find_a_utf8_name_in_another_locale(service: Service, command: list[str]) -> None:
    path = service.output / f"{command[0]}-{NAME}"
    take_run(service, path)
    done = subprocess.run(
        [*COMMAND, *command, path],
        env=os.environ | NOT_UTF8 | HDF5,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert NAME.encode() in done.stdout
    assert done.stderr == b""


def test_a_run_is_started_by_its_utf8_name_in_another_locale(service: Service) -> None:
    path = service.output / f"started-{NAME}"
    environment = os.environ | NOT_UTF8 | {"STD_DAQ_API_URL": service.rest_url}
    done = subprocess.run(
        [*COMMAND, "start", path, "1", "--no-wait"], env=environment, capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr.decode()
    assert service.status()["acquisition"]["info"]["output_file"] == str(path)
    assert path.exists() or Path(f"{str(path)[:-3]}_0.h5").exists()
    service.post("/writer/stop")


def test_a_latin_1_locale_is_no_other_than_utf8(service: Service, tmp_path: Path) -> None:
    """Where each byte is a character, nothing fails: names would silently be others."""
    made = (
        subprocess.run(
            ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(tmp_path / "de_DE.ISO-8859-1")],
            capture_output=True,
            text=True,
        )
        if Path("/usr/share/i18n/locales/de_DE").exists()
        else None
    )
    if made is None or made.returncode != 0:
        absent("locales", "no locale of ISO-8859-1 can be made")
    path = service.output / f"latin-{NAME}"
    take_run(service, path)
    environment = os.environ | {"LOCPATH": str(tmp_path), "LC_ALL": "de_DE.ISO-8859-1", "PYTHONUTF8": "0"}
    said = subprocess.run(
        [sys.executable, "-c", "import sys; print(sys.getfilesystemencoding())"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert said.stdout.strip() == "iso8859-1"
    done = subprocess.run([*COMMAND, "inspect", path], env=environment, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    assert NAME.encode() in done.stdout
