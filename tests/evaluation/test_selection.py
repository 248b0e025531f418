"""The choice without labels: blind to labels, deaf to collapsed settings, judged fairly afterwards."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from falcon_ssl.evaluation.selection import Candidate, choose, judge_choice, rank_correlation


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
    assert judge_choice(rows, rows[1]) == {
        "top1_knn": {
            "chosen": 0.8,
            "best": 0.9,
            "worst": 0.7,
            "correlation_rankme": 0.5,
            "correlation_shared_bits": -1.0,
        }
    }
    assert judge_choice([candidate(1.0)], candidate(1.0)) == {}


def test_no_correlation_is_claimed_where_there_is_none():
    rows = [candidate(10.0, bits=None, top1_knn=0.7), candidate(10.0, bits=1.0, top1_knn=0.8)]
    assert judge_choice(rows, rows[1])["top1_knn"].keys() == {"chosen", "best", "worst"}


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=12))
def test_rank_correlation_is_spearmans(pairs):
    x, y = zip(*pairs, strict=True)
    found = rank_correlation(x, y)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(spearmanr(x, y).statistic, abs=1e-9)
