"""Orders have every number once, and sets of numbers are what they were made of."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from small_space import taken

from accel.explore.indices import Indices, shuffled


@given(st.integers(1, 3000), st.integers(0, 2**40))
def test_the_random_order_has_every_number_once(size, seed):
    assert sorted(shuffled(np.arange(size), size, seed)) == list(range(size))


def test_the_random_order_follows_from_its_seed():
    orders = [taken("random", seed) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != taken("grid") == list(range(36))
    assert taken("random", 1, first=10) == orders[0][:10]
    assert taken("random", 5, 10**5, 9000)[5000:] == shuffled(np.arange(5000, 9000), 10**5, 5).tolist()


def test_the_random_order_of_the_largest_space_goes_everywhere():
    size = 2**63 - 1
    numbers = shuffled(np.arange(4000), size, 3)
    assert len(set(numbers.tolist())) == 4000
    assert 0 <= numbers.min() < size / 1000
    assert size - size / 1000 < numbers.max() < size


def test_first_places_of_many_seeds_go_everywhere():
    counts = Counter(shuffled(np.arange(1), 10, seed)[0] for seed in range(2000))
    assert min(counts.values()) > 130
    assert max(counts.values()) < 280


@given(st.lists(st.lists(st.integers(0, 60), max_size=30), max_size=4))
def test_a_set_of_indices_has_what_it_was_made_of(lists):
    indices = Indices.of(np.array(numbers, np.int64) for numbers in lists)
    members = {number for numbers in lists for number in numbers}
    assert len(indices) == len(members)
    assert indices.has(np.arange(62)).tolist() == [number in members for number in range(62)]
    assert (indices.starts[1:] > indices.stops[:-1]).all()
