"""The choice without labels: blind to labels, deaf to collapsed settings, judged fairly afterwards."""

import math

import pytest

from falcon_ssl.evaluation.selection import Candidate, choose, rank_correlation, score_choice


def candidate(rankme, *, bits=1.0, verdict="healthy", alarms=(), **by_labels):
    return Candidate({"beta": rankme}, rankme, bits, verdict, alarms, by_labels)


def test_the_largest_rankme_wins_whatever_the_labels_say():
    low, high = candidate(10.0, top1_knn=0.9), candidate(20.0, top1_knn=0.1)
    assert choose([low, high]) is high
    assert choose([high, low]) is high


@pytest.mark.parametrize("broken", [{"verdict": "collapsed"}, {"alarms": ("views_disagree",)}])
def test_broken_settings_are_left_out(broken):
    alive = candidate(10.0)
    assert choose([candidate(99.0, **broken), alive]) is alive
    assert choose([candidate(99.0, **broken)]) is None


@pytest.mark.parametrize("early", [{"bits": None}, {"bits": -0.1}, {"verdict": "warning"}])
def test_what_healthy_runs_show_early_does_not_exclude(early):
    assert choose([candidate(1.0, **early)]) is not None


def test_how_good_the_choice_was():
    rows = [
        candidate(10.0, bits=3.0, top1_knn=0.7),
        candidate(30.0, bits=2.0, top1_knn=0.8),
        candidate(20.0, bits=1.0, top1_knn=0.9),
    ]
    assert score_choice(rows, rows[1]) == {
        "top1_knn": {
            "chosen": 0.8,
            "best": 0.9,
            "worst": 0.7,
            "correlation_rankme": 0.5,
            "correlation_shared_bits": -1.0,
        }
    }
    assert score_choice([candidate(1.0)], candidate(1.0)) == {}


def test_no_correlation_is_claimed_where_there_is_none():
    rows = [candidate(10.0, bits=None, top1_knn=0.7), candidate(10.0, bits=1.0, top1_knn=0.8)]
    assert score_choice(rows, rows[1])["top1_knn"].keys() == {"chosen", "best", "worst"}


def test_equal_values_share_their_mean_rank():
    assert rank_correlation([1, 2, 2, 4], [1, 2, 3, 4]) == pytest.approx(3 / math.sqrt(10))
    assert rank_correlation([1, 1], [1, 2]) is None
    assert rank_correlation([1, 2], [1, 1]) is None
