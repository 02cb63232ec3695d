"""Encoders and decoders: the doubling layer is a transposed convolution, and decoders undo their encoders' sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.nets.autoencoders import ConvDecoder, ConvEncoder, Dense, Doubling


@pytest.mark.slow
def test_doubling_is_the_transposed_convolution_of_stride_two():
    h = jax.random.normal(jax.random.key(0), (3, 5, 7, 2))
    layer = Doubling(4)
    params = layer.init(jax.random.key(1), h)["params"]["Dense_0"]
    bias = jax.random.normal(jax.random.key(2), (64,)).reshape(4, 4, 4)
    kernel = params["kernel"].reshape(2, 4, 4, 4).transpose(1, 2, 0, 3)
    got = layer.apply({"params": {"Dense_0": {"kernel": params["kernel"], "bias": bias.ravel()}}}, h)
    wanted = jax.lax.conv_general_dilated(
        h, kernel[::-1, ::-1], (1, 1), [(2, 2), (2, 2)], (2, 2), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    # The bias of every part is added where the part lands: once for each of the pixels that reach it.
    ones = jnp.ones((1, 5, 7, 1))
    spread = jax.lax.conv_general_dilated(
        ones, bias[::-1, ::-1, None], (1, 1), [(2, 2), (2, 2)], (2, 2), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(got, wanted + spread, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(28, 28, 1), (9, 14, 3)])
def test_decoders_give_images_of_every_size(shape):
    encoder, decoder = ConvEncoder((2, 3, 4), 10, 6), ConvDecoder((2, 3, 4), 10, shape)
    image = jax.random.normal(jax.random.key(0), (5, *shape))
    encoded, params = jax.jit(encoder.init_with_output)(jax.random.key(1), image)
    assert encoded.shape == (5, 6)
    decoded, decoder_params = jax.jit(decoder.init_with_output)(jax.random.key(2), encoded)
    assert decoded.shape == image.shape

    @jax.jit
    def again(image):
        return decoder.apply(decoder_params, encoder.apply(params, image))

    # One example or many are the same function, and every pixel depends on the code.
    np.testing.assert_allclose(again(image[3]), decoded[3], atol=1e-5)
    assert (again(image[2]) != again(image[3])).all()


def test_a_zero_layer_starts_at_zero():
    x = jax.random.normal(jax.random.key(0), (4, 3))
    assert not Dense((8,), 2, zero=True).init_with_output(jax.random.key(1), x)[0].any()
    assert Dense((8,), 2).init_with_output(jax.random.key(1), x)[0].all()
