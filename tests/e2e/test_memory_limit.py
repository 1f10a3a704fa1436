"""The memory limit against hostile histories of writes. scripts/bench-limit plays longer ones."""

import itertools

import histories
import pytest

LIMIT_MIB = 64
# Each history with one of the policies, in turns.
PLAYED = [
    pytest.param(history, policy, id=f"{history.__name__}-{policy}")
    for history, policy in zip(histories.HISTORIES, itertools.cycle(histories.POLICIES))
]


# They are work and do not wait: a busy machine takes its time.
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("history", "policy"), PLAYED)
def test_resident_memory_stays_near_the_limit(history, policy):
    samples, most, written = histories.play(history, LIMIT_MIB, times=4, policy=policy)
    assert written >= 4 * LIMIT_MIB * histories.MIB
    assert max(told for _, _, told in samples) > LIMIT_MIB * histories.MIB / 2, "the cache was filled"
    assert max(told for _, _, told in samples) <= LIMIT_MIB * histories.MIB
    assert most <= histories.most_allowed(LIMIT_MIB), f"{most / histories.MIB:.0f} MiB were resident"
