"""Codes against the probabilities that they are of, exact ones of enumerated tables, and the files they are kept in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.autoregressive import Conditionals
from diffjax.coding import Autoregressive, BitsBack, Chain, Stack, file, stack
from diffjax.coding.codec import groups
from diffjax.distributions import DiscretizedNormal, Normal
from diffjax.errors import InputError
from diffjax.predictions import x0 as predicts_x0
from diffjax.processes import gaussian
from diffjax.schedules import from_betas

K, D, ORDER = 4, 3, np.array([2, 0, 1])
JOINT = np.random.default_rng(0).dirichlet(np.full(K**D, 0.3)).reshape((K,) * D)


def conditionals(joint):
    """Of a table p(x_{o(1)}, x_{o(2)}, x_{o(3)}): the state is the first two classes."""
    logs = [jnp.log(joint.sum((1, 2))), jnp.log(joint.sum(2)), jnp.log(joint)]

    def step(state, i, previous):
        a, b = jnp.where(i == 1, previous, state[0]), jnp.where(i == 2, previous, state[1])
        first = jnp.broadcast_to(logs[0], (len(a), K))
        return (a, b), jnp.where(i == 0, first, jnp.where(i == 1, logs[1][a], logs[2][a, b]))

    return Conditionals(ORDER, K, None, lambda num: (jnp.zeros(num, jnp.int32),) * 2, step)


def drawn(num, seed=0):
    flat = np.random.default_rng(seed).choice(K**D, num, p=JOINT.ravel())
    return np.stack(np.unravel_index(flat, JOINT.shape), 1).astype(np.uint8)


@pytest.fixture(scope="module")
def table():
    return Autoregressive(conditionals, jnp.asarray(JOINT.transpose(ORDER), jnp.float32), (D,))


def test_an_autoregressive_code_has_the_bits_of_the_exact_probabilities(table):
    x = drawn(3000)
    words = table.encode(x).words()
    exact = -np.log2(JOINT[tuple(x.T)]).sum()
    assert exact < 32 * len(words) < exact * 1.0005 + 64
    np.testing.assert_array_equal(table.decode(Stack(words), len(x)), x)


def test_what_a_law_makes_impossible_can_be_coded():
    law = stack.categorical(np.array([[0.0, -1e9, -np.inf]] * 3))
    coder = Stack()
    coder.push(law, [2, 1, 0])
    assert 2 * 20 < 32 * len(coder.words()) <= 64 + 2 * 24
    np.testing.assert_array_equal(Stack(coder.words()).pop(law), [2, 1, 0])
    with pytest.raises(InputError, match="not finite"):
        stack.categorical(np.array([[0.0, np.nan]]))


def test_borrowed_symbols_have_their_law_and_only_reached_words_are_written():
    mean, num = np.full(4000, 3.3), 4000
    law, coder = stack.normal_near(mean, np.full(num, 2.0), 20), Stack()
    x = coder.borrow(law)
    assert abs(x.mean() - 3.3) < 5 * 2 / num**0.5
    assert abs(x.var() - (4 + 1 / 12)) < 5 * 4 * (2 / num) ** 0.5
    entropy = num * np.log2(2 * np.sqrt(2 * np.pi * np.e))
    assert abs(coder.bits_borrowed() - entropy) < 5 * (num / 2) ** 0.5 / np.log(2) + 96
    coder.push(law, x)  # gives all back
    assert 32 * len(coder.words()) <= coder.bits_borrowed() + 64


def linear_gaussian():
    """z ~ N(0, 1), levels 0 .. 8 of three entries by N(z, 0.3²) rounded; q as a VAE's encoder would give it."""
    scale = 0.3

    def posterior(params, x):
        y = x * 0.25 - 1.0
        precision = 1 + 3 / scale**2
        return Normal(y.sum(-1, keepdims=True) / scale**2 / precision, jnp.full((len(x), 1), 1.3 / precision))

    def table(params, z):
        law = DiscretizedNormal(jnp.broadcast_to(z, (len(z), 3)), jnp.float32(scale**2), 9)
        return jax.vmap(law.log_prob, out_axes=-1)(jnp.linspace(-1.0, 1.0, 9))

    rng = np.random.default_rng(1)
    y = rng.normal(size=(600, 1)) + scale * rng.normal(size=(600, 3))
    return posterior, table, np.clip(np.rint((y + 1) * 4), 0, 8).astype(np.uint8)


def test_bits_back_costs_the_bound():
    posterior, table, x = linear_gaussian()
    codec = BitsBack(posterior, table, (), (3,), 9)
    coded = codec.encode(x)
    words = coded.words()
    np.testing.assert_array_equal(codec.decode(Stack(words), len(x)), x)
    # -ELBO by quadrature in z, of the same q and p.
    q = posterior((), jnp.asarray(x))
    mean, std = np.asarray(q.mean, float), np.sqrt(np.asarray(q.variance, float))
    nodes, weights = np.polynomial.hermite_e.hermegauss(21)
    each = []
    for node in nodes:
        z = mean + std * node
        log_p = np.take_along_axis(np.asarray(table((), jnp.asarray(z, jnp.float32))), x[..., None].astype(int), -1)
        each.append(log_p.sum((1, 2)) - 0.5 * z[:, 0] ** 2 + 0.5 * node**2 + np.log(std[:, 0]))
    cost = -(np.array(each) * (weights / weights.sum())[:, None]).sum(0) / np.log(2)
    spread = np.sqrt(len(x)) * np.std(each, axis=0).mean() / np.log(2)  # of the draws of z
    found = 32 * len(words) - coded.bits_borrowed()
    assert abs(found - cost.sum()) < 0.005 * cost.sum() + 5 * spread + 64


def test_a_chain_costs_its_exact_bits_where_the_reverse_is_exact():
    process, times = gaussian(from_betas([0.05, 0.3, 0.6, 0.9])), jnp.arange(5) / 4

    def predict(params):
        return predicts_x0(lambda xt, t: jnp.full_like(xt, params))

    decoder = lambda mean, variance: DiscretizedNormal(mean, variance, 5)  # noqa: E731
    codec = Chain(process, predict, jnp.float32(0.5), times, "posterior", decoder, (2,), 5, spacing=1 / 32)
    x = np.full((200, 2), 3, np.uint8)  # all are 0.5, as is the prediction: every reverse step is exact
    coded = codec.encode(x)
    words = coded.words()
    np.testing.assert_array_equal(codec.decode(Stack(words), len(x)), x)
    # What remains is the prior, KL(q(x_T | x_0) ‖ p(x_T)), and -log p(x_0 | x_1) of the rounded Normal.
    last = Normal(0.5 * process.schedule.alpha(1.0), process.schedule.sigma(1.0) ** 2)
    first = process.reverse(
        predict(jnp.float32(0.5))(jnp.zeros((1, 1)), jnp.full(1, 0.25)), jnp.zeros((1, 1)), 0.0, 0.25
    )
    exact = last.kl(Normal(0.0, 1.0)) - DiscretizedNormal(first.mean, first.variance, 5).log_prob(0.5)
    exact = float(exact.sum()) * x.size / np.log(2)
    # The bits of one trajectory vary by the log-weights of its steps, which the exact reverse makes small.
    net = 32 * len(words) - coded.bits_borrowed()
    assert abs(net - exact) < 0.03 * x.size + 5 * x.size**0.5 + 64


def test_groups_cover_all_examples_and_grow_with_what_is_coded():
    found = groups(700, 0.15)
    assert [i for group in found for i in range(700)[group]] == list(range(700))
    assert all(group.stop - group.start <= max(1, 0.15 * group.start) for group in found)


def test_a_file_is_what_was_packed_or_one_sentence(table):
    x = drawn(50)
    data = file.pack(file.Head(50, file.digest(JOINT, "here"), "npz"), table.encode(x).words(), x)
    head, words, check = file.unpack(data, "F")
    assert head == (50, file.digest(JOINT, "here"), "npz")
    file.check_decoded(table.decode(file.stack_of(words), 50), check)
    other = JOINT.copy()
    other[0, 0, 0] = np.nextafter(other[0, 0, 0], 1)
    assert len({file.digest(JOINT), file.digest(other), file.digest(JOINT, "there")}) == 3
    for wrong, says in (
        (b"", "does not begin with"),
        (b"PK" + data, "F was not written by --mode=compress"),
        (data[:4] + b"\x09" + data[5:], "F is of version 9"),
        (data[:20], "F is truncated"),
        (data[:-1], "F is truncated"),
        (data + b"!", "F is damaged"),
        *(
            (data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], "F is (damaged|truncated)")
            for at in range(5, len(data))
        ),
    ):
        with pytest.raises(InputError, match=says):
            file.unpack(wrong, "F")
    x[7, 1] ^= 1
    with pytest.raises(InputError, match="cannot be decoded here"):
        file.check_decoded(x, check)


def test_levels_that_do_not_fit_are_refused(table):
    for wrong, says in (
        (np.full((2, D), K, np.uint8), "has the value 4: levels are 0 .. 3"),
        (np.full((2, D), -1), "has the value -1"),
        (np.zeros((2, D + 1), np.uint8), r"shape \(2, 4\)"),
        (np.zeros((0, D), np.uint8), r"shape \(0, 3\)"),
        (np.zeros((2, D)), "float64: give integers"),
    ):
        with pytest.raises(InputError, match=says):
            table.encode(wrong)
