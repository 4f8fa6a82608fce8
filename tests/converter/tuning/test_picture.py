"""The picture is a PNG of the size that was asked for, whatever the search found."""

from pathlib import Path
from struct import unpack

import numpy as np
import pytest
from matplotlib import image

from converter.tuning.picture import write_picture
from converter.tuning.results import Results, Trial

TRIALS = (
    Trial(0, 2, 0.91, "all", "complete", 0.02, 12.0, 0.08, 1.0),
    Trial(1, 8, 0.97, "all", "complete", 0.20, 10.0, 0.09, 1.0),
    Trial(2, 4, 0.95, "all", "pruned", 0.05, None, None, 0.5),
)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("title", ["model: 3 trials", "a$b_{c$ model"])
def test_a_png(tmp_path: Path, count: int, title: str) -> None:
    importances = {"rank": 0.8, "gamma": 0.2} if count > 1 else {}
    results = Results(TRIALS[:count], TRIALS[count // 2], 15.0, importances)
    path = tmp_path / "out.png"
    write_picture(path, results, title)
    raw = path.read_bytes()
    assert raw[:8] == b"\x89PNG\r\n\x1a\n"
    assert unpack(">II", raw[16:24]) == (1430, 990)
    pixels = image.imread(path)
    assert pixels.shape == (990, 1430, 4)
    # something is drawn in each of the four fields
    for rows in np.split(pixels, 2):
        for field in np.split(rows, 2, axis=1):
            assert field[:, :, :3].min() < 0.5
    assert list(tmp_path.iterdir()) == [path]
