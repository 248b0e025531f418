"""Charts and pictures: what is drawn is what was recorded."""

from __future__ import annotations

import base64
import io
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from falcon_ssl.report.axes import make_axis, thin
from falcon_ssl.report.formatting import format_duration, format_number
from falcon_ssl.report.images import heat_map, pick_square, thumbnail_sheet
from falcon_ssl.report.svg import Level, Series, line_chart

finite = st.floats(-1e12, 1e12, allow_nan=False)


def decode(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))


@settings(deadline=None, max_examples=60)
@given(values=st.lists(finite, min_size=1, max_size=30))
def test_an_axis_holds_its_values_and_has_round_ticks(values: list[float]) -> None:
    axis = make_axis(np.array(values), 0.0, 200.0, "linear", 0.04)
    assert axis.low <= min(values)
    assert axis.high >= max(values)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 9
    slack = 1e-6 * (axis.high - axis.low)  # far below what a drawing can show
    assert all(axis.low - slack <= tick <= axis.high + slack for tick in ticks)
    assert all(-1e-3 <= axis(v) <= 200.001 for v in values)


@settings(deadline=None, max_examples=60)
@given(values=st.lists(st.floats(1e-12, 1e12), min_size=1, max_size=30))
def test_a_log_axis_holds_its_values(values: list[float]) -> None:
    axis = make_axis(np.array(values), 0.0, 200.0, "log", 0.04)
    assert all(-1e-3 <= axis(v) <= 200.001 for v in values)
    assert 2 <= len(axis.ticks()) <= 12


def test_thinning_keeps_the_mean_and_short_curves() -> None:
    x, y = np.arange(10_000.0), np.random.default_rng(0).normal(size=10_000)
    few_x, few_y = thin(x, y, most=100)
    assert len(few_x) == len(few_y) == 100
    # 100 equal bins: the mean of bin means is the mean, to rounding.
    assert few_y.mean() == pytest.approx(y.mean(), abs=1e-12)
    assert thin(x[:50], y[:50], most=100)[1] is not few_y
    np.testing.assert_array_equal(thin(x[:50], y[:50], most=100)[1], y[:50])


def test_thinning_averages_what_is_finite() -> None:
    y = np.array([1.0, np.nan, np.nan, np.nan])
    few = thin(np.arange(4.0), y, most=2)[1]
    assert few[0] == 1.0
    assert np.isnan(few[1])


def chart(**options: object) -> str:
    series = [Series("a", np.array([0.0, 1.0, 2.0]), np.array([1.0, np.nan, 3.0]))]
    given = {"x_label": "epoch", "y_label": "nats", "description": "a < b", **options}
    return str(line_chart(series, **given))  # type: ignore[arg-type]


def test_a_chart_is_well_formed_and_breaks_at_gaps() -> None:
    text = chart(levels=[Level(2.0, "<bound>")], events=[(1.0, "alarm & more")])
    root = ElementTree.fromstring(f"<div>{text}</div>")
    path = next(e.get("d", "") for e in root.iter() if e.get("class") == "line")
    assert path.count("M") == 2  # the pen is lifted at NaN
    assert "L" not in path
    assert "&lt;bound&gt;" in text
    assert "alarm &amp; more" in text


def test_a_log_chart_leaves_out_what_is_not_positive() -> None:
    series = [Series("a", np.arange(3.0), np.array([1.0, 0.0, 100.0]))]
    text = str(
        line_chart(series, x_label="", y_label="", description="", y_scale="log", from_zero=True)
    )
    assert "inf" not in text
    assert "nan" not in text


def test_a_constant_and_a_single_value_can_be_drawn() -> None:
    for y in (np.zeros(1), np.full(4, 7.0)):
        text = str(
            line_chart([Series("a", np.arange(len(y)), y)], x_label="", y_label="", description="")
        )
        assert "nan" not in text


def test_a_heat_map_shows_sign_and_size() -> None:
    matrix = np.array([[0.0, 1.0], [-1.0, 0.5], [5.0, np.nan]])
    pixels = np.asarray(decode(heat_map(matrix)).convert("RGBA"))
    assert pixels.shape == (3, 2, 4)
    assert pixels[0, 0, 3] == 0  # zero shows the page, light or dark
    assert pixels[0, 1, 3] == pixels[1, 0, 3] == pixels[2, 0, 3] == 255  # clipped at 1
    assert pixels[1, 1, 3] == pytest.approx(127, abs=2)
    assert pixels[0, 1, 2] > pixels[0, 1, 0]  # positive is blue
    assert pixels[1, 0, 0] > pixels[1, 0, 2]  # negative is orange
    assert pixels[2, 1, 3] == 0


def test_large_matrices_are_subsampled_evenly() -> None:
    picked = pick_square(np.add.outer(np.arange(1000), np.zeros(1000)))
    assert picked.shape == (334, 334)
    assert (np.diff(picked[:, 0]) == 3).all()


@pytest.mark.parametrize("shape", [(7, 8, 8), (5, 32, 24, 3), (3, 16, 32, 3)])
def test_thumbnails_lie_row_by_row(shape: tuple[int, ...]) -> None:
    thumbnails = np.zeros(shape, dtype=np.uint8)
    thumbnails += (40 * np.arange(shape[0], dtype=np.uint8)).reshape(-1, *[1] * (len(shape) - 1))
    uri, columns, rows = thumbnail_sheet(thumbnails)
    image = np.asarray(decode(uri)).astype(int)
    height, width = image.shape[0] // rows, image.shape[1] // columns
    assert max(height, width) <= 32
    for m in range(shape[0]):
        row, column = divmod(m, columns)
        middle = image[row * height + height // 2, column * width + width // 2]
        assert np.abs(middle - 40 * m).max() <= 6  # JPEG rounds colors


def test_numbers_are_written_for_people() -> None:
    assert format_number(float("nan")) == "NaN"
    assert format_number(float("-inf")) == "−∞"
    assert format_number(0.0) == "0"
    assert format_number(1e-8) == "1e−8"
    assert format_number(123456.0) == "123\u202f456"
    assert format_number(-0.5, "score") == "−0.500"
    assert format_duration(59.96) == "60.0 s"


def test_every_path_of_a_chart_stays_inside_the_drawing() -> None:
    numbers = re.findall(r"[ML]([\d.]+) ([\d.]+)", chart())
    assert numbers
    assert all(0 <= float(x) <= 440 and 0 <= float(y) <= 236 for x, y in numbers)


def test_names_of_near_levels_stand_above_each_other() -> None:
    def heights(*values: float) -> list[float]:
        text = chart(levels=[Level(value, f"level {value}") for value in values])
        return [float(y) for y in re.findall(r'<text class="level"[^>]* y="([-\d.]+)"', text)]

    near, far = heights(2.0, 2.01), heights(2.0, 2.9)
    assert near[0] - near[1] > 11
    assert (far[0] - far[1]) > 30
