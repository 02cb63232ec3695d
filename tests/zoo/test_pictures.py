"""What the pictures show, of a model whose every law is known: N(0, I), whose score is -x."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffjax import predictions, processes, samplers, schedules
from diffjax.zoo import Contours, Figures, Panels
from diffjax.zoo.diffusion import pictures
from experiments import pictures as drawing

SCHEDULE = schedules.linear(100, 1e-3, 0.1)
PROCESS = processes.gaussian(SCHEDULE)
PREDICT = predictions.score(lambda xt, t: -xt)


@pytest.mark.slow
def test_denoised_and_inpainted_images_have_the_posterior_s_law():
    x0 = jax.random.normal(jax.random.key(0), (8, 16, 16, 1))
    times = SCHEDULE.times[::-1]
    figures = pictures.conditioned(jax.random.key(1), PROCESS, PREDICT, x0, times, "forward", lambda x: x)
    rows = {name: np.asarray(grid.images).reshape(4, 8, 16, 16) for name, grid in figures.items()}
    assert all(grid.columns == 8 for grid in figures.values())
    for row in rows.values():
        np.testing.assert_array_equal(row[0], np.asarray(x0)[..., 0])

    _, y, exact, paper = rows["denoising"]
    noise = y - rows["denoising"][0]
    n = noise.size
    power = np.mean(noise**2)
    assert 0.2 < power < 0.4  # log_snr just above 1
    slope = 1 / (1 + power)
    rest = exact - slope * y
    spread = np.sqrt(slope * power)  # posterior variance τ²/(1 + τ²)
    assert abs(np.mean(rest * y)) < 5 * spread * np.sqrt((1 + power) / n) + 0.01
    # The paper's r held constant: the posterior of r² and beyond, nearer to y than it should be.
    assert np.mean(paper * y) / np.mean(y * y) > slope + 0.05

    _, _, filled, clean = rows["inpainting"]
    hole = np.zeros((16, 16), bool)
    hole[4:12, 4:12] = True
    for drawn in (filled, clean):
        assert np.abs(drawn - rows["inpainting"][0])[:, ~hole].max() < 0.05
        inside = drawn[:, hole]
        assert abs(inside.mean()) < 5 / np.sqrt(inside.size)
        # The last step takes the mean: the data's variance less β_1, and independent of what was there.
        assert abs(inside.var() - 1) < 5 * np.sqrt(2 / inside.size) + 0.01
        assert abs(np.mean(inside * np.asarray(x0)[..., 0][:, hole])) < 5 / np.sqrt(inside.size)


@pytest.mark.slow
def test_colours_drawn_for_grey_images_have_the_posterior_s_law():
    """Of N(0, I) pixels with a known mean of three channels, the rest is N(0, I) in the plane of the other two."""
    x0 = jax.random.normal(jax.random.key(0), (8, 8, 8, 3))
    figure = pictures.conditioned(jax.random.key(1), PROCESS, PREDICT, x0, SCHEDULE.times[::-1], "forward", jnp.asarray)
    real, grey, drawn = np.asarray(figure["colourisation"].images).reshape(3, 8, 8, 8, 3)
    np.testing.assert_array_equal(real, x0)
    np.testing.assert_allclose(grey, np.broadcast_to(real.mean(-1, keepdims=True), real.shape), rtol=1e-6)
    assert np.abs(drawn.mean(-1) - grey[..., 0]).max() < 0.05
    colour = drawn - drawn.mean(-1, keepdims=True)
    n = colour.size * 2 / 3  # two of three directions are free
    assert abs((colour**2).sum() / n - 1) < 5 * np.sqrt(2 / n) + 0.01
    assert abs((colour * (real - grey)).sum() / n) < 5 / np.sqrt(n)


@pytest.mark.slow
def test_the_drift_of_white_data_shrinks_by_half_the_rate():
    figure = pictures.trajectories(
        jax.random.key(0), PROCESS, PREDICT, jax.random.normal(jax.random.key(1), (500, 2)), SCHEDULE.times, "forward"
    )
    for step, panel in zip((2, 50, 100), figure.rows[2], strict=True):
        shrink = np.sqrt(1 - np.float64(SCHEDULE.betas[step - 1])) - 1
        np.testing.assert_allclose(panel.vectors, shrink * np.asarray(panel.xy), atol=1e-4)
    for panel in (*figure.rows[0][1:], *figure.rows[1]):
        xy = np.asarray(panel.xy)
        assert np.abs(xy.mean(0)).max() < 5 / np.sqrt(len(xy))
        assert np.abs(xy.var(0) - 1).max() < 5 * np.sqrt(2 / len(xy))


@pytest.mark.slow
def test_a_film_ends_where_the_chain_does():
    """30 frames of a deterministic sampler over 60 steps end in the sample of all 60 steps at once."""
    times = samplers.spaced(SCHEDULE.times, 60)
    stepper = samplers.ddim(PROCESS)
    x, x0 = pictures.film(stepper, PROCESS, PREDICT, jax.random.key(0), times, (5, 4, 4, 1), frames=30)
    assert x.shape == x0.shape == (30, 5, 4, 4, 1)
    prior_key, _ = jax.random.split(jax.random.key(0))
    start = stepper.prior((5, 4, 4, 1)).sample(prior_key)
    whole, path = samplers.denoise(stepper, PREDICT, jax.random.key(1), start, times, lambda state: state.x)
    np.testing.assert_allclose(x[-1], whole, atol=1e-5)
    np.testing.assert_allclose(x, path[1::2], atol=1e-5)
    # For white data E[x_0 | x_t] = alpha x_t, x_t where the frame begins.
    alpha = jax.vmap(SCHEDULE.alpha)(times[:-1:2])
    before = jnp.concatenate([start[None], x[:-1]])
    np.testing.assert_allclose(x0, alpha[:, None, None, None, None] * before, atol=1e-4)


def test_contours_hold_the_mass_they_say():
    """Of a Gaussian of the plane, 1 - l is the mass where the density is above l times its peak."""
    x, y = np.linspace(-7, 7, 281), np.linspace(-12, 12, 241)
    density = np.exp(-0.5 * (x**2 + (y[:, None] / 2) ** 2))
    levels = drawing._levels(density, (0.9, 0.5, 0.1))
    np.testing.assert_allclose(levels, (0.1, 0.5, 0.9), atol=2e-3)


def test_a_short_row_of_panels_ends_in_blanks(tmp_path):
    axis = np.linspace(-3, 3, 20)
    panel = Contours("title", axis, axis, np.exp(-0.5 * (axis**2 + axis[:, None] ** 2)))
    path = drawing.write(tmp_path / "panels", Panels([[panel, panel], [panel]], ("x", "y")))
    picture = np.asarray(Image.open(path).convert("L"))
    height, width = picture.shape
    bottom = picture[height // 2 + 40 : -40]  # without labels and numbers
    assert (bottom[:, width // 2 + 40 :] == 255).all()
    assert (bottom[:, : width // 2] < 255).any()


@pytest.mark.parametrize(("shape", "plane"), [((5, 1), [7.0, 0.0]), ((5, 2), [7.0, 8.0]), ((5, 2, 3), [7.0, 8.0])])
def test_samples_that_are_no_images_are_points_of_their_first_two_numbers(shape, plane):
    samples = np.arange(7.0, 7.0 + np.prod(shape)).reshape(shape)
    points = Figures().samples(samples).rows[0][0]
    assert points.xy.shape == (5, 2)
    np.testing.assert_array_equal(points.xy[0], plane)
    assert Figures().samples(np.zeros((5, 4, 4, 1))).columns == 3
