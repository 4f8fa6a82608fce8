import pytest

from benchmarks.report import Measured, as_json, print_report, rss_limit


def test_the_json_has_ratio_quartiles_pairs_and_both_medians() -> None:
    said = as_json([Measured("decode", (50.0, 60.0, 40.0), (100.0, 100.0, 100.0), "peer")])
    assert said == {
        "decode_tokens_per_second": 50.0,
        "peer_decode_tokens_per_second": 100.0,
        "decode_ratio": 0.5,
        "decode_ratio_quartiles": [0.45, 0.55],
        "decode_pairs": 3,
    }


def test_beside_the_machines_limits_the_ratio_is_a_fraction() -> None:
    said = as_json([Measured("prefill", (300.0,), (600.0,), "limit")])
    assert said["prefill_gemm_fraction"] == 0.5
    assert said["limit_prefill_tokens_per_second"] == 600.0


def test_ours_alone_has_no_ratio() -> None:
    assert as_json([Measured("load", (0.5, 0.7))]) == {"load_seconds": 0.6, "load_pairs": 2}


def test_memory_may_be_the_file_the_cache_and_a_fixed_part() -> None:
    assert rss_limit(400.0, 100_000_000, 50_000_000) == {
        "rss_limit_mb": pytest.approx(415.0),
        "rss_over_limit": False,
    }
    assert rss_limit(415.1, 100_000_000, 50_000_000)["rss_over_limit"]


def test_the_table_shows_every_figure_and_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    measured = [
        Measured("decode", (50.0,), (100.0,), "peer"),
        Measured("load", (0.5,), (0.25,), "peer"),
        Measured("rss", (400.0,)),
    ]
    said = {"rss_limit_mb": 300.0, "rss_over_limit": True, "load_average": 0.25}
    print_report("tiny", measured, said)
    shown = capsys.readouterr().out
    assert "0.500 to 0.500" in shown
    assert "Engine.load" in shown
    assert "0.25" in shown
    assert "rss is over 300 MB" in shown
