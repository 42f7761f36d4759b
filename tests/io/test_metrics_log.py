import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from dimo_jax.core.errors import UserError
from dimo_jax.io.metrics_log import Board, MetricsLog, encode_row, read_metrics
from dimo_jax.runtime.files import write_json


def test_rows_are_on_disk_before_the_log_is_closed(tmp_path):
    path = tmp_path / "run" / "metrics.jsonl"
    with MetricsLog(path) as log:
        log.write(1, {"stage": "größer", "loss": jnp.float32(0.5), "psnr": np.float64(20.25), "num": np.int32(3)})
        assert json.loads(path.read_text()) == {"step": 1, "stage": "größer", "loss": 0.5, "psnr": 20.25, "num": 3}
        log.write(2, {"grid": np.arange(4).reshape(2, 2)})
    assert [row["step"] for row in read_metrics(path)] == [1, 2]
    assert read_metrics(path)[1]["grid"] == [[0, 1], [2, 3]]
    with pytest.raises(ValueError, match="closed"):
        log.write(3, {})


def test_non_finite_numbers_are_null_and_named():
    line = encode_row({"loss": float("nan"), "terms": {"rgb": jnp.inf, "kl": 1.0}, "list": [1.0, -np.inf]})

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    row = json.loads(line, parse_constant=refuse)
    assert row["loss"] is None
    assert row["terms"] == {"rgb": None, "kl": 1.0}
    assert row["list"] == [1.0, None]
    assert row["non_finite"] == {"loss": "nan", "terms.rgb": "inf", "list[1]": "-inf"}
    assert "non_finite" not in json.loads(encode_row({"loss": 1.0}))


def test_json_files_are_strict_as_well(tmp_path):
    write_json({"psnr": np.float32(np.inf), "rows": (1, [math.nan]), "ok": np.arange(2)}, tmp_path / "a.json")
    found = json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)
    assert found == {"psnr": None, "rows": [1, [None]], "ok": [0, 1],
                     "non_finite": {"psnr": "inf", "rows[1][0]": "nan"}}  # fmt: skip


def test_truncate_after_restored_step_then_continue(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        for step in range(10):
            log.write(step, {"loss": step / 2})
    with MetricsLog(path) as log:
        assert log.truncate_after(6) == 3
        assert log.truncate_after(6) == 0
        log.write(7, {"loss": -1.0})
    rows = read_metrics(path)
    assert [row["step"] for row in rows] == list(range(8))
    assert rows[-1]["loss"] == -1.0
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_torn_last_line_is_removed(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "lo')
    assert [row["step"] for row in read_metrics(path)] == [1]
    with MetricsLog(path) as log:
        log.write(2, {})
    assert [row["step"] for row in read_metrics(path)] == [1, 2]


@pytest.mark.parametrize("line", ["nonsense", "[1]", '{"loss": 1}', '{"step": "a"}', ""])
def test_damaged_line_is_named_and_kept(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    content = '{"step": 1}\n' + line + '\n{"step": 3}\n'
    path.write_text(content)
    with MetricsLog(path) as log, pytest.raises(UserError, match=r"metrics\.jsonl: line 2"):
        log.truncate_after(1)
    assert path.read_text() == content


def test_step_is_not_a_value(tmp_path):
    with MetricsLog(tmp_path / "a.jsonl") as log, pytest.raises(ValueError, match="step"):
        log.write(1, {"step": 2})


def read_events(folder):
    """The events as tensorboardX's own protobufs, read record by record: length, checksum, data, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    events = []
    for file in sorted(folder.iterdir()):
        data, at = file.read_bytes(), 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 8], "little")
            events.append(Event.FromString(data[at + 12 : at + 12 + size]))
            at += 16 + size
    return [(event.step, value) for event in events for value in event.summary.value]


def test_board_writes_scalars_images_and_histograms(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    with Board(tmp_path / "board") as board:
        board.scalars(3, {"loss/rgb": jnp.float32(0.25), "psnr": 21})
        board.image(4, "truth", image)
        board.histogram(5, "radii", np.array([1.0, 2.0, np.nan, np.inf]))
        board.histogram(6, "none", np.array([np.nan]))
    values = {(step, value.tag): value for step, value in read_events(tmp_path / "board")}
    assert values[3, "loss/rgb"].simple_value == 0.25
    assert values[3, "psnr"].simple_value == 21
    assert (values[4, "truth"].image.height, values[4, "truth"].image.width) == (5, 7)
    assert values[5, "radii"].histo.num == 2
    assert values[5, "radii"].histo.max == 2
    assert values[5, "radii/num_non_finite"].simple_value == 2
    assert (6, "none") not in values
    assert values[6, "none/num_non_finite"].simple_value == 1


def test_board_refuses_float_images(tmp_path):
    with Board(tmp_path) as board, pytest.raises(TypeError, match="uint8"):
        board.image(1, "a", np.zeros((4, 4, 3), np.float32))


def test_a_line_that_is_too_deep_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "loss": ' + "[" * 100_000 + "\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl: line 2 is not JSON"):
        read_metrics(tmp_path / "metrics.jsonl")
