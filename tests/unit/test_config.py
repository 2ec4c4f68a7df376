"""Which detector configs are accepted, which are refused in which words, and what a partial change does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from daq_core import config as configs
from daq_core.config import MAX_FILE_BYTES, REQUIRED, DaqConfig, named, nearest_key, unknown_keys
from daq_core.detectors import layout_of
from daq_core.detectors.keys import DetectorKeys
from daq_core.errors import InvalidConfig

CONFIGS = Path(__file__).parents[3] / "shared" / "configs"
"""Configs of real detectors; users of this project have no such folder."""

EIGER_500K: dict[str, Any] = {
    "detector_name": "EG05M",
    "detector_type": "eiger",
    "bit_depth": 16,
    "image_pixel_height": 514,
    "image_pixel_width": 1030,
    "n_modules": 4,
    "start_udp_port": 50020,
    "writer_user_id": 0,
    "module_positions": {
        "0": [0, 0, 513, 255],
        "1": [516, 0, 1029, 255],
        "2": [0, 513, 513, 258],
        "3": [516, 513, 1029, 258],
    },
}


def files(kind: str) -> list[Any]:
    found = sorted((CONFIGS / kind).glob("*.json"))
    if not found:
        absent = pytest.mark.skip(reason=f"no folder of {kind} detector configs beside this project")
        return [pytest.param(None, id="absent", marks=absent)]
    return [pytest.param(path, id=path.stem) for path in found]


@pytest.mark.parametrize("path", files("accepted"))
def test_a_config_of_a_real_detector_is_accepted_and_kept(path: Path) -> None:
    values = json.loads(path.read_text())
    assert DaqConfig.load(path).as_dict() == values


@pytest.mark.parametrize("path", files("refused"))
def test_an_inconsistent_config_of_a_real_detector_is_refused_with_module_and_numbers(path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"module \d+ \[.*\]:? .*\d+|\d+ modules, but") as refused:
        DaqConfig.load(path)
    assert str(refused.value).startswith(f"{path}: Config errors: ")


def positions(n: int, width: int, height: int, columns: int = 2) -> dict[str, list[int]]:
    """Return modules in a grid of touching cells, numbered row by row."""
    return {
        str(m): [x := m % columns * width, y := m // columns * height, x + width - 1, y + height - 1]
        for m in range(n)
    }


SOUND = [
    pytest.param({}, id="eiger 0.5M"),
    pytest.param({"bit_depth": 8}, id="8 bit"),
    pytest.param({"bit_depth": 32}, id="32 bit"),
    pytest.param({"n_modules": 6}, id="two modules left out"),
    pytest.param({"module_positions": {"3": [1029, 255, 516, 0]}}, id="one module, turned by 180 degrees"),
    pytest.param({"module_positions": positions(4, 514, 256)}, id="no gaps"),
    pytest.param({"start_udp_port": 65532}, id="last ports"),
    pytest.param({"start_udp_port": 1}, id="first ports"),
    pytest.param({"writer_user_id": -1}, id="own user"),
    pytest.param({"writer_user_id": 2**32 - 2}, id="largest user"),
    pytest.param(
        {
            "detector_type": "jungfrau",
            "image_pixel_height": 1024,
            "image_pixel_width": 2048,
            "module_positions": positions(4, 1024, 512),
        },
        id="jungfrau 2M",
    ),
    pytest.param(
        {
            "detector_type": "jungfrau-raw",
            "image_pixel_width": 1024,
            "module_positions": {"0": [0, 0, 1023, 255]},
        },
        id="jungfrau, partial readout",
    ),
]


@pytest.mark.parametrize("changes", SOUND)
def test_a_sound_config_is_accepted(changes: dict[str, Any]) -> None:
    assert DaqConfig.parse(EIGER_500K | changes).as_dict() == EIGER_500K | changes


def with_module(number: str, *corners: Any) -> dict[str, Any]:
    return {"module_positions": EIGER_500K["module_positions"] | {number: list(corners)}}


BAD = [
    # ranges and types
    ({"bit_depth": 7}, "bit_depth 7"),
    ({"bit_depth": 0}, "bit_depth"),
    ({"bit_depth": 24}, "bit_depth 24"),
    ({"bit_depth": None}, "non-int value bit_depth"),
    ({"bit_depth": True}, "non-int value bit_depth"),
    ({"bit_depth": 8.5}, "non-int value bit_depth (8.5)"),
    ({"bit_depth": float("nan")}, "non-int value bit_depth"),
    ({"bit_depth": "eight"}, 'non-int value bit_depth ("eight")'),
    ({"bit_depth": [16]}, "non-int value bit_depth"),
    ({"start_udp_port": 0}, "start_udp_port 0"),
    ({"start_udp_port": -1}, "start_udp_port"),
    ({"start_udp_port": 70000}, "start_udp_port"),
    ({"start_udp_port": 65533}, "65533"),
    ({"writer_user_id": -2}, "writer_user_id"),
    ({"writer_user_id": 2**32}, "writer_user_id"),
    ({"writer_user_id": 2**32 - 1}, "writer_user_id"),
    ({"writer_user_id": "root"}, 'non-int value writer_user_id ("root")'),
    ({"writer_user_id": False}, "non-int value writer_user_id"),
    ({"image_pixel_height": 0}, "image_pixel_height"),
    ({"image_pixel_width": -5}, "image_pixel_width"),
    ({"image_pixel_width": 10**12}, "image_pixel_width"),
    ({"n_modules": 0}, "n_modules"),
    ({"n_modules": 10**9}, "n_modules"),
    ({"detector_type": "pilatus"}, "'pilatus' is not supported; known are eiger, jungfrau"),
    ({"detector_type": 5}, "detector_type"),
    ({"detector_type": ["eiger"]}, "detector_type"),
    ({"detector_name": ""}, "detector_name"),
    ({"detector_name": "entry"}, "'entry'"),
    ({"detector_name": "a/b"}, "'a/b'"),
    ({"detector_name": "a\nb"}, "detector_name"),
    ({"detector_name": ".."}, "detector_name"),
    ({"detector_name": None}, "detector_name"),
    ({"module_sync_queue_size": 0}, "module_sync_queue_size"),
    ({"ram_buffer_gb": float("nan")}, "ram_buffer_gb"),
    ({"ram_buffer_gb": -1}, "ram_buffer_gb"),
    ({"ram_buffer_gb": True}, "ram_buffer_gb"),
    ({"image_timeout_s": 0}, "image_timeout_s"),
    ({"image_timeout_s": float("inf")}, "image_timeout_s"),
    ({"incomplete_images": "keep"}, "incomplete_images"),
    ({"log_level": "loud"}, "log_level"),
    # geometry
    ({"module_positions": None}, "module_positions"),
    ({"module_positions": []}, "module_positions"),
    ({"module_positions": {}}, "module_positions is empty"),
    ({"module_positions": {"one": [0, 0, 513, 255]}}, "one"),
    ({"module_positions": {"0": [0, 0, 513]}}, "module_positions.0"),
    ({"module_positions": {"0": [0, 0, 513, 255, 1]}}, "module_positions.0"),
    ({"module_positions": {"0": "0, 0, 513, 255"}}, "module_positions.0"),
    ({"module_positions": {"0": [0, 0, True, 255]}}, "module_positions.0.2 (true)"),
    ({"module_positions": {"0": [0, 0, 513.5, 255]}}, "module_positions.0.2 (513.5)"),
    ({"module_positions": {"1": [0, 0, 513, 255], "01": [516, 0, 1029, 255]}}, "twice"),
    ({"module_positions": positions(5, 514, 256)}, "module_positions has 5 modules, but n_modules is 4"),
    (
        with_module("4", 0, 0, 513, 255) | {"n_modules": 5},
        "module 4 (columns 0..513, rows 0..255) overlaps module 0",
    ),
    ({"module_positions": {"4": [0, 0, 513, 255]}}, "module 4 [0, 0, 513, 255]: module numbers are 0..3"),
    ({"module_positions": {"-1": [0, 0, 513, 255]}}, "module -1"),
    (with_module("1", 515, 0, 1029, 255), "module 1 [515, 0, 1029, 255] covers 515 x 256 pixels"),
    (with_module("1", 516, 0, 1029, 254), "module 1 [516, 0, 1029, 254] covers 514 x 255 pixels"),
    (
        with_module("1", 517, 0, 1030, 255),
        "module 1 [517, 0, 1030, 255] does not lie inside the image of 1030 x 514",
    ),
    (with_module("0", -1, 0, 512, 255), "module 0 [-1, 0, 512, 255] does not lie inside"),
    (with_module("2", 0, 514, 513, 259), "module 2 [0, 514, 513, 259] does not lie inside"),
    (with_module("2", 0, 510, 513, 255), "module 2 (columns 0..513, rows 255..510) overlaps module 0"),
    ({"image_pixel_width": 1029}, "module 1 [516, 0, 1029, 255] does not lie inside the image of 1029 x 514"),
    ({"image_pixel_height": 513}, "module 2 [0, 513, 513, 258] does not lie inside the image of 1030 x 513"),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=lambda value: str(value)[:60])
def test_a_bad_value_is_refused_in_one_line_that_names_it(changes: dict[str, Any], message: str) -> None:
    good = DaqConfig.parse(EIGER_500K)
    for refuse in (lambda: DaqConfig.parse(EIGER_500K | changes), lambda: good.merge(changes)):
        with pytest.raises(InvalidConfig) as refused:
            refuse()
        assert message in str(refused.value)
        assert str(refused.value).startswith("Config errors: ")
        assert "\n" not in str(refused.value)
        assert len(str(refused.value)) < 400
    assert good.as_dict() == EIGER_500K


def test_everything_that_is_wrong_is_said_at_once() -> None:
    values = {k: v for k, v in EIGER_500K.items() if k not in ("n_modules", "detector_name")}
    with pytest.raises(InvalidConfig) as refused:
        DaqConfig.parse(values | {"bit_depth": "x", "start_udp_port": None})
    for part in (
        "missing detector_name, n_modules",
        "non-int value bit_depth",
        "non-int value start_udp_port",
    ):
        assert part in str(refused.value)


@pytest.mark.parametrize("key", REQUIRED)
def test_each_of_the_nine_keys_must_be_there(key: str) -> None:
    with pytest.raises(InvalidConfig, match=f"Config errors: missing {key}"):
        DaqConfig.parse({k: v for k, v in EIGER_500K.items() if k != key})


@pytest.mark.parametrize("values", [None, 5, "text", [], [EIGER_500K]])
def test_what_is_no_object_is_no_config(values: Any) -> None:
    with pytest.raises(InvalidConfig, match="must be a JSON object"):
        DaqConfig.parse(values)
    with pytest.raises(InvalidConfig, match="must be a JSON object"):
        DaqConfig.parse(EIGER_500K).merge(values)


def test_integers_may_come_as_text_and_are_integers_afterwards() -> None:
    config = DaqConfig.parse(EIGER_500K | {"bit_depth": "8", "writer_user_id": " 1000 ", "n_modules": 4.0})
    assert (config.bit_depth, config.writer_user_id, config.n_modules) == (8, 1000, 4)
    assert all(type(config.as_dict()[key]) is int for key in ("bit_depth", "writer_user_id", "n_modules"))
    ours = DaqConfig.parse(EIGER_500K | {"n_udp_ports": "16", "n_udp_interfaces": 2.0})
    assert (ours.n_udp_ports, ours.n_udp_interfaces) == (16, 2)


def test_the_keys_come_in_the_order_and_types_of_the_original() -> None:
    given = EIGER_500K | {
        "submodule_info": [{"hostname": "beb101"}],
        "image_timeout_s": 1.0,
        "log_level": "debug",
    }
    shown = DaqConfig.parse(dict(reversed(given.items()))).as_dict()
    assert list(shown)[:9] == list(EIGER_500K)
    assert shown == given
    assert {key: type(value) for key, value in shown.items()} == {key: type(given[key]) for key in shown}
    assert json.loads(DaqConfig.parse(given).as_json()) == given


def test_keys_that_were_not_given_are_not_shown_but_have_their_default() -> None:
    config = DaqConfig.parse(EIGER_500K)
    assert list(config.as_dict()) == list(EIGER_500K)
    assert (config.module_sync_queue_size, config.image_timeout_s, config.incomplete_images) == (
        50,
        0.5,
        "write",
    )


def test_a_partial_change_keeps_all_other_keys_and_leaves_the_old_config_as_it_was() -> None:
    before = DaqConfig.parse(EIGER_500K | {"log_level": "debug"})
    after = before.merge({"writer_user_id": 1000, "image_timeout_s": 2.0})
    assert after.as_dict() == EIGER_500K | {
        "writer_user_id": 1000,
        "log_level": "debug",
        "image_timeout_s": 2.0,
    }
    assert before.as_dict() == EIGER_500K | {"log_level": "debug"}


def test_module_positions_are_replaced_whole() -> None:
    after = DaqConfig.parse(EIGER_500K).merge({"module_positions": {"1": [0, 0, 513, 255]}})
    assert after.as_dict()["module_positions"] == {"1": [0, 0, 513, 255]}


def test_an_empty_change_is_accepted_and_changes_nothing() -> None:
    config = DaqConfig.parse(EIGER_500K)
    assert config.merge({}) == config


def test_the_full_config_is_a_change_that_changes_nothing() -> None:
    config = DaqConfig.parse(EIGER_500K | {"submodule_info": {}})
    assert config.merge(config.as_dict()) == config


def test_unknown_keys_are_ignored_and_can_be_named() -> None:
    changes = {"zoom": 3, "bit_depth": 32, "Bit_Depth": 8}
    after = DaqConfig.parse(EIGER_500K | {"colour": "blue"}).merge(changes)
    assert after.as_dict() == EIGER_500K | {"bit_depth": 32}
    assert unknown_keys(changes) == ["Bit_Depth", "zoom"]


@pytest.mark.parametrize(
    ("mistyped", "meant"),
    [("compresion", "compression"), ("Bit_Depth", "bit_depth"), ("ram_bufer_gb", "ram_buffer_gb"), ("x", "")],
)
def test_the_key_that_was_meant_is_found(mistyped: str, meant: str) -> None:
    assert nearest_key(mistyped) == meant


def test_unknown_keys_are_named_in_few_words_however_many_there_are() -> None:
    assert named(["compresion", "zoom"]) == "compresion (is compression meant?), zoom"
    assert named([f"{n:02}" * 100 for n in range(1000)]).endswith("…, and 992 more")
    assert named(["a\nb"]) == r"'a\nb'"


def test_a_layout_comes_of_the_detectors_keys_alone() -> None:
    keys = DetectorKeys.model_validate(EIGER_500K)
    config = DaqConfig.parse(EIGER_500K)
    assert layout_of(keys).ports.tolist() == config.layout.ports.tolist()
    assert {name for name, field in DaqConfig.model_fields.items() if field.is_required()} == set(REQUIRED)


def test_a_layout_is_worked_out_once_for_each_config(monkeypatch: pytest.MonkeyPatch) -> None:
    worked_out = []

    def count(config: DetectorKeys) -> object:
        worked_out.append(config)
        return layout_of(config)

    monkeypatch.setattr(configs, "layout_of", count)
    config = DaqConfig.parse(EIGER_500K)
    changed = config.merge({"image_timeout_s": 1.0})
    assert config.layout is config.layout
    assert changed.layout is not config.layout
    assert [id(one) for one in worked_out] == [id(config), id(changed)]


def test_configs_are_equal_when_their_keys_are_whatever_was_worked_out_of_them() -> None:
    config = DaqConfig.parse(EIGER_500K)
    assert config == DaqConfig.parse(EIGER_500K)
    assert config != config.merge({"start_udp_port": 50030})
    assert config.model_copy() == config


def test_a_config_cannot_be_changed_in_place() -> None:
    config = DaqConfig.parse(EIGER_500K)
    with pytest.raises(ValueError, match="frozen"):
        config.bit_depth = 32


def test_an_image_too_large_for_one_chunk_of_the_file_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="larger than HDF5 allows"):
        DaqConfig.parse(EIGER_500K | {"image_pixel_height": 65535, "image_pixel_width": 65535})


def test_an_image_that_compression_could_make_too_large_for_one_chunk_is_refused() -> None:
    large = EIGER_500K | {"bit_depth": 8, "image_pixel_height": 65535, "image_pixel_width": 65500}
    assert DaqConfig.parse(large).compression == "none"
    with pytest.raises(InvalidConfig, match="set compression to none"):
        DaqConfig.parse(large | {"compression": "bitshuffle-lz4"})


def test_a_config_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "eiger.json"
    path.write_text(json.dumps(EIGER_500K))
    assert DaqConfig.load(path).as_dict() == EIGER_500K


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe{}", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"bit_depth": 1' + b"0" * 5000 + b"}", "not JSON"),
        (b"[]", "must be a JSON object"),
        (b"{}", "missing detector_name"),
        (b'{"bit_depth": NaN}', "non-int value bit_depth (NaN)"),
        (b'{"bit_depth": 16, "bit_depth": 32}', "the key bit_depth is given twice"),
        (b'{"module_positions": {"0": [], "0": []}}', "the key 0 is given twice"),
    ],
    ids=[
        "empty",
        "torn",
        "binary",
        "deep",
        "long number",
        "list",
        "empty object",
        "NaN",
        "twice",
        "deep twice",
    ],
)
def test_a_file_that_is_no_config_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(InvalidConfig) as refused:
        DaqConfig.load(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert message in str(refused.value)


def test_a_file_with_keys_that_no_config_has_is_read_and_they_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "eiger.json"
    path.write_text(json.dumps(EIGER_500K | {"compresion": "bitshuffle-lz4", "of_std_daq": 1}))
    assert DaqConfig.load(path).compression == "none"
    assert "ignored: compresion (is compression meant?), of_std_daq" in caplog.text


def test_a_file_of_50_megabytes_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.truncate(50 * 10**6)
    with pytest.raises(InvalidConfig, match=f"larger than {MAX_FILE_BYTES} bytes"):
        DaqConfig.load(path)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"none\.json: cannot be read: No such file"):
        DaqConfig.load(tmp_path / "none.json")
