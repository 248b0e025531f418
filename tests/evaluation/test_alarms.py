"""Each alarm is provoked by a broken configuration; a healthy run gives none."""

import itertools
import json
import math
import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from falcon_ssl.core.errors import InputError
from falcon_ssl.core.monitor import Moment, Observation
from falcon_ssl.core.theory import logit_scale
from falcon_ssl.data import load_splits
from falcon_ssl.dictionary.complete import CompleteDictionary
from falcon_ssl.dictionary.rademacher import RademacherDictionary
from falcon_ssl.evaluation import AlarmMonitor
from falcon_ssl.losses import falcon_loss

C, N, F = 512, 128, 64
DICTIONARY = RademacherDictionary(C, F, seed=0)
L = logit_scale(C, 1e-8)
NETWORK = nn.ModuleDict({"encoder": nn.Identity()})  # a method as far as alarms look at it


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def views(step: int, kind: str) -> tuple[Tensor, Tensor]:
    """Embeddings of two views of a batch, unit rows."""
    u, between = noise(N, F, seed=step), 0.1
    if kind == "same":
        u, between = noise(1, F, seed=0) + 1e-3 * u, 1e-3
    elif kind == "flat":
        u = u[:, :3] @ noise(3, F, seed=0)
    elif kind == "few codes":
        u = 100 * noise(3, F, seed=0)[torch.arange(N) % 3] + u
    other = (
        noise(N, F, seed=10_000 + step)
        if kind == "strangers"
        else u + between * noise(N, F, seed=1)
    )
    return normalize(u, dim=1), normalize(other, dim=1)


def watch(
    monitor: AlarmMonitor,
    kind: str = "healthy",
    *,
    steps: range = range(0, 300, 5),
    dictionary: RademacherDictionary | CompleteDictionary = DICTIONARY,
    scale: float = L,
    **loss: object,
) -> list[tuple[int, Observation]]:
    seen = []
    for step in steps:
        u1, u2 = views(step, kind)
        terms = falcon_loss((u1, u2), dictionary, logit_scale=scale, **loss).as_floats()
        moment = Moment(step, 0.0, terms, u1, NETWORK, is_epoch_end=False)
        seen.append((step, monitor(moment)))
    return seen


def alarms(seen: list[tuple[int, Observation]]) -> dict[str, str]:
    return {name: text for _, observed in seen for name, text in observed.alarms.items()}


def monitor(**options: object) -> AlarmMonitor:
    return AlarmMonitor(DICTIONARY, **({"logit_scale": L, "batch_size": N} | options))


@pytest.mark.parametrize("prior_matching", ["reverse", "forward", "renyi2"])
@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_a_healthy_run_is_left_in_peace(prior_matching, beta):
    options = {"prior_matching": prior_matching, "beta": beta}
    seen = watch(monitor(**options), **options)
    assert alarms(seen) == {}
    assert not any(observed.stop for _, observed in seen)


def test_uniform_assignment_when_epsilon_is_almost_one_over_c():
    scale = logit_scale(C, 0.999 / C)
    seen = watch(monitor(logit_scale=scale), scale=scale)
    assert alarms(seen) == {
        "uniform_assignment": "for 200 steps: invariance term at log C = 6.24: the assignment is uniform, "
        "is the temperature right?"
    }


def test_same_assignment_when_the_encoder_is_constant():
    text = alarms(watch(monitor(), "same"))["same_assignment"]
    assert text == (
        "for 200 steps: mutual information below 3 % of its most, loss 6.24 (log C = 6.24): "
        "every sample gets the same assignment"
    )


def test_same_assignment_under_forward_matching():
    # Softer, so that the common assignment of a collapsed network is near the uniform one without being it.
    soft = logit_scale(C, 0.6 / C)
    options = {"prior_matching": "forward", "beta": 1.0}
    found = alarms(watch(monitor(logit_scale=soft, **options), "same", scale=soft, **options))
    assert "within 1 % of (1 + beta) log C" in found["same_assignment"]


def test_views_disagree_when_beta_is_zero():
    text = alarms(watch(monitor(beta=0.0), "strangers", beta=0.0))["views_disagree"]
    assert "two views of an image differ as much as at the start" in text


def test_a_network_that_reads_off_the_place_alone_is_no_collapse_of_codes_and_yet_found():
    """Places of one view differ, images do not: mutual information is about places, and the views disagree by more."""
    u = normalize(noise(1, 4, F, seed=1), dim=2).expand(N, -1, -1)
    terms = falcon_loss((u, u), DICTIONARY, logit_scale=L).as_floats()
    assert math.log(C) - terms["prior_matching"] - terms["entropy"] > 1
    watcher, found = monitor(), {}
    for step in range(0, 300, 5):
        found |= watcher(Moment(step, 0.0, terms, u[:, 0], NETWORK, is_epoch_end=False)).alarms
    assert "views_disagree" in found


def test_an_unbiased_divergence_is_no_number_of_bits():
    terms = {
        "total": 3.0,
        "invariance": 3.0,
        "prior_matching": -0.1,
        "entropy": 2.0,
        "consistency": 1.0,
    }
    moment = Moment(0, 0.0, terms, noise(N, F, seed=0), NETWORK, is_epoch_end=False)
    assert "mutual_information_bits" in monitor()(moment).metrics
    assert "mutual_information_bits" not in monitor(unbiased=True)(moment).metrics


def test_what_is_smoothed_does_not_depend_on_how_often_it_is_logged():
    """A ratio of consistency to information that falls from 2 to 1 within 600 steps."""
    found = {}
    for log_every in (5, 25):
        watcher = monitor()
        for step in range(log_every, 605, log_every):
            # Mutual information log C - D - entropy = 2 nats, from which consistency comes down from twice of it.
            entropy, consistency = math.log(C) - 2, 2 * (2 - step / 600)
            terms = {"entropy": entropy, "consistency": consistency, "prior_matching": 0.0}
            terms |= {"invariance": entropy + consistency, "total": entropy + consistency}
            watcher(Moment(step, 0.0, terms, noise(N, F, seed=0), NETWORK, is_epoch_end=False))
        found[log_every] = watcher.state_dict()["difference"]
    assert found[25] == pytest.approx(found[5], abs=0.03)
    assert found[5] == pytest.approx(1, abs=0.05)


def test_views_that_approach_each_other_slowly_are_no_alarm():
    """As on CIFAR-10, where consistency exceeds the mutual information for hundreds of steps."""
    watcher, found, ratio = monitor(), {}, []
    for step in range(0, 600, 5):
        u = noise(N, F, seed=step)
        spread = 1.6 * 0.5 ** (step / 250)
        u1, u2 = (normalize(u + spread * noise(N, F, seed=k + step), dim=1) for k in (7, 8))
        terms = falcon_loss((u1, u2), DICTIONARY, logit_scale=L).as_floats()
        information = math.log(C) - terms["prior_matching"] - terms["entropy"]
        ratio.append(terms["consistency"] / information)
        found |= watcher(Moment(step, 0.0, terms, u1, NETWORK, is_epoch_end=False)).alarms
    assert min(ratio[:40]) > 1, "no proof for 200 steps that the views share anything"
    assert ratio[-1] < 1
    assert found == {}


def test_views_that_agreed_from_the_start_need_no_progress():
    assert alarms(watch(monitor(), "healthy", steps=range(0, 900, 5))) == {}


def test_few_directions():
    text = alarms(watch(monitor(), "flat"))["few_directions"]
    assert text == "for 200 steps: 3 of 64 embedding directions carry 99 % of the variance"
    negative_control = watch(AlarmMonitor(), "healthy")
    assert "few_directions" not in alarms(negative_control)


def test_few_codes():
    text = alarms(watch(monitor(), "few codes"))["few_codes"]
    assert text == "for 200 steps: 3 of 512 codes used by 128 images: is beta too large?"


def test_embeddings_are_watched_without_codes_and_terms():
    assert list(alarms(watch(AlarmMonitor(), "flat"))) == ["few_directions"]
    assert alarms(watch(AlarmMonitor(), "healthy")) == {}


def test_equal_embeddings_have_no_direction_at_all():
    watcher = AlarmMonitor(patience=0)
    u = normalize(torch.ones(N, F), dim=1)
    observed = watcher(Moment(0, 0.0, {}, u, NETWORK, is_epoch_end=False))
    assert observed.alarms["few_directions"].startswith("for 0 steps: 0 of 64 embedding directions")
    assert observed.metrics["effective_rank_u"] == 0


def test_frozen_encoder():
    network = nn.ModuleDict({"encoder": nn.Linear(3, 2)})
    watcher = AlarmMonitor(patience=20, every=5)

    def look(step: int) -> dict[str, str]:
        u, _ = views(step, "healthy")
        return dict(watcher(Moment(step, 0.0, {}, u, network, is_epoch_end=False)).alarms)

    def move() -> None:
        with torch.no_grad():
            network["encoder"].weight[0, 0] += 1e-6  # as little as the end of a schedule moves it

    assert look(-5) == {}
    with torch.no_grad():
        network["encoder"].weight += 0.1  # what was learned before
    for step in range(0, 60, 5):
        move()
        assert look(step) == {}
    words = "the weights of the encoder do not change: is it frozen?"
    found = [look(step) for step in range(60, 100, 5)]
    assert [f for f in found if f] == [{"frozen_encoder": f"for 20 steps: {words}"}]
    move()
    assert look(100) == {}


def test_weights_that_other_numbers_of_ranks_add_have_not_moved(monkeypatch):
    """A resumed run adds floating-point numbers in another order, to another sum; integers have one."""
    network = nn.ModuleDict({"encoder": nn.Linear(30, 20)})
    call = itertools.count()

    def rounded(sums: list[Tensor], parameters: list[Tensor]) -> list[Tensor]:
        return [x * (1 + 1e-15 * next(call)) if x.is_floating_point() else x for x in sums]

    monkeypatch.setattr("falcon_ssl.evaluation.alarms.whole_sums", rounded)
    watcher, found = AlarmMonitor(patience=20, every=5), {}
    for step in range(0, 60, 5):
        u, _ = views(step, "healthy")
        found |= watcher(Moment(step, 0.0, {}, u, network, is_epoch_end=False)).alarms
    assert found.keys() == {"frozen_encoder"}


def test_a_soft_complete_dictionary_is_uniform_rather_than_collapsed():
    width, scale = 128, 1.1
    complete = CompleteDictionary(width)
    watcher = AlarmMonitor(
        complete, logit_scale=scale, prior_matching="renyi2", batch_size=N, patience=0
    )
    u1, u2 = (normalize(noise(N, width, seed=seed), dim=1) for seed in (0, 1))
    terms = falcon_loss((u1, u2), complete, logit_scale=scale).as_floats()
    observed = watcher(Moment(0, 0.0, terms, u1, NETWORK, is_epoch_end=False))
    assert list(observed.alarms) == ["uniform_assignment"]


@pytest.mark.parametrize("kind", ["healthy", "same"])
def test_the_complete_dictionary_is_judged_by_what_its_entropy_can_do(kind):
    width, scale = 128, 18.35
    complete = CompleteDictionary(width)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        u = (
            noise(N, width, seed=step)
            if kind == "healthy"
            else noise(1, width, seed=0).expand(N, -1)
        )
        return normalize(u, dim=1), normalize(u + 0.1 * noise(N, width, seed=1), dim=1)

    watcher = AlarmMonitor(complete, logit_scale=scale, prior_matching="renyi2", batch_size=N)
    found = {}
    for step in range(0, 260, 10):
        u1, u2 = batch(step)
        terms = falcon_loss((u1, u2), complete, logit_scale=scale).as_floats()
        observed = watcher(Moment(step, 0.0, terms, u1, NETWORK, is_epoch_end=False))
        found |= observed.alarms
    assert observed.metrics["codes_used"] == (N if kind == "healthy" else 1)
    if kind == "healthy":
        assert found == {}
    else:
        assert {"same_assignment", "few_directions", "few_codes"} == found.keys()
        assert "1 of 2^128 codes" in found["few_codes"]


def test_an_alarm_is_given_once_and_again_when_it_returns():
    watcher = monitor(patience=20)
    first = watch(watcher, "few codes", steps=range(0, 100, 5))
    assert [step for step, observed in first if "few_codes" in observed.alarms] == [20]
    assert alarms(watch(watcher, "healthy", steps=range(100, 120, 5))) == {}
    second = watch(watcher, "few codes", steps=range(120, 200, 5))
    assert [step for step, observed in second if "few_codes" in observed.alarms] == [140]


def test_a_passing_dip_is_no_alarm():
    watcher = monitor(patience=50)
    seen = watch(watcher, "same", steps=range(0, 40, 5)) + watch(watcher, steps=range(40, 200, 5))
    assert alarms(seen) == {}


@pytest.mark.parametrize("cut", [5, 60, 105])
def test_a_resumed_run_says_exactly_the_same(cut):
    options = {"patience": 100}
    whole = watch(monitor(**options), "few codes", steps=range(0, 200, 5))
    before = monitor(**options)
    start = watch(before, "few codes", steps=range(0, cut, 5))
    after = monitor(**options)
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    assert start + watch(after, "few codes", steps=range(cut, 200, 5)) == whole


def test_on_collapse_stop_ends_the_run_with_the_alarm():
    seen = watch(monitor(on_collapse="stop", patience=50), "same")
    assert next(step for step, observed in seen if observed.stop) == 50
    assert not any(observed.stop for _, observed in watch(monitor(patience=50), "same"))


def test_metrics_of_a_step_and_of_a_look():
    seen = dict(watch(monitor(every=10), steps=range(0, 25, 5)))
    looked = {"mutual_information_bits", "effective_rank_u", "codes_used"}
    assert seen[0].metrics.keys() == looked
    assert seen[5].metrics.keys() == {"mutual_information_bits"}
    assert seen[10].metrics.keys() == looked
    assert 2 < seen[0].metrics["mutual_information_bits"] <= 7
    assert 40 < seen[0].metrics["effective_rank_u"] <= F
    assert 50 < seen[0].metrics["codes_used"] <= N


def test_mutual_information_is_not_claimed_where_the_terms_do_not_tell_it():
    for options in ({"prior_matching": "forward"}, {"uniform_prior": False}):
        matching = {k: v for k, v in options.items() if k == "prior_matching"}
        seen = watch(monitor(**options), steps=range(0, 10, 5), **matching)
        assert "mutual_information_bits" not in seen[0][1].metrics


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_collapse": "panic"}, "unknown on_collapse: received 'panic'"),
        ({"patience": -1}, "patience is too small"),
        ({"every": 0}, "every is too small"),
        ({"batch_size": 1}, "batch_size is too small"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        AlarmMonitor(**options)


def train(*, beta: float = 1.0, batch_norm: bool = True, epsilon: float = 1e-8) -> dict[str, str]:
    """A real run, small: a linear encoder on the digits, noise as augmentation."""
    source = load_splits("digits").train
    x = source.images(torch.arange(len(source))).flatten(1) / 255
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(64, F), nn.BatchNorm1d(F) if batch_norm else nn.Identity())
    optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-2)
    scale = logit_scale(C, epsilon)
    watcher = monitor(patience=40, beta=beta, logit_scale=scale)
    found = {}
    for step in range(80):
        rows = x[torch.randint(len(x), (N,))]
        u1, u2 = (normalize(encoder(rows + 0.2 * torch.randn_like(rows)), dim=1) for _ in "12")
        loss = falcon_loss((u1, u2), DICTIONARY, logit_scale=scale, beta=beta)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        network = nn.ModuleDict({"encoder": encoder})
        moment = Moment(step, 0.0, loss.as_floats(), u1.detach(), network, is_epoch_end=False)
        found |= watcher(moment).alarms
    return found


def test_a_real_run_is_healthy():
    assert train() == {}


def test_a_real_run_with_huge_beta_and_no_normalization_collapses_and_says_so():
    assert train(beta=10.0, batch_norm=False).keys() == {"same_assignment", "few_codes"}


def test_a_real_run_with_epsilon_almost_one_over_c_says_so():
    assert train(epsilon=0.999 / C).keys() == {"uniform_assignment"}


def follow(totals, grad_norms):
    """Alarms of a run of such totals and gradient norms, one every five steps."""
    watching = AlarmMonitor(patience=30)
    seen = []
    for look, (total, grad_norm) in enumerate(zip(totals, grad_norms, strict=True)):
        terms = {"total": total, "grad_norm": grad_norm}
        moment = Moment(5 * look, 0.0, terms, noise(N, F, seed=look), NETWORK, False)
        seen.append((5 * look, watching(moment)))
    return alarms(seen)


# The first 30 looks of a real run on the digits: GEDI with its energy term as it was at first, energy weight 1 and
# temperature .1. It ended below the untrained encoder.
EXPLODING_TOTAL = [
    *(6.87, 6.8, 6.74, 6.86, 7.44, 6.93, 7.04, 7.43, 5.95, -1.91, -84.6, -238.0, -296.0, -717.0, -1370.0),
    *(-519.0, 5000.0, 4540.0, -1520.0, -1500.0, -1640.0, -1530.0, -1910.0, -2120.0, -2280.0),
    *(-1530.0, -2040.0, -1810.0, -1950.0, -2350.0),
]  # fmt: skip
EXPLODING_NORM = [
    *(5.47, 5.4, 5.56, 6.42, 9.05, 8.27, 10.8, 23.5, 24.8, 63.4, 444.0, 820.0, 889.0, 2890.0, 5340.0),
    *(69600.0, 167000.0, 151000.0, 10300.0, 11000.0, 11400.0, 8680.0, 14900.0, 8170.0, 9760.0),
    *(5730.0, 23200.0, 6400.0, 5820.0, 6170.0),
]  # fmt: skip


def test_a_diverging_run_says_so():
    quiet = [2.0] * len(EXPLODING_TOTAL)
    by_norm = follow(quiet, EXPLODING_NORM)["diverging"]
    assert re.search(r"gradient norm \S+ where it was 5\.56 at first: training diverges", by_norm)
    by_total = follow(EXPLODING_TOTAL, quiet)["diverging"]
    assert "where it was 6.86 at first: training diverges" in by_total


def test_growth_that_learning_runs_have_is_no_divergence():
    steps = range(80)
    healthy = [5 + 0.3 * math.sin(step) for step in steps]
    assert "diverging" not in follow(healthy, [0.5 + 0.05 * step for step in steps])  # ninefold
    outliers = [0.5 if step % 20 else 5e4 for step in range(1, 81)]
    assert "diverging" not in follow(healthy, outliers)
    overflowing = [
        math.inf if step % 9 == 0 else 0.5 for step in steps
    ]  # float16 looks for its scale
    assert "diverging" not in follow(healthy, overflowing)
    assert "diverging" not in follow([0.01 * math.sin(step) for step in steps], [0.5] * 80)


@pytest.mark.parametrize(("change", "expected"), [(1e-9, {"no_progress"}), (1e-3, set())])
def test_weights_that_hardly_move_learn_nothing(change, expected):
    encoder = nn.Linear(16, 16).double()
    network = nn.ModuleDict({"encoder": encoder})
    watching = AlarmMonitor(patience=30, every=5)
    seen = []
    for step in range(0, 100, 5):
        with torch.no_grad():
            encoder.weight += change
        seen.append((step, watching(Moment(step, 0.0, {}, noise(N, F, seed=step), network, False))))
    found = alarms(seen)
    assert found.keys() == expected
    assert all("is the learning rate too small?" in text for text in found.values())
