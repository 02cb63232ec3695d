"""Codes: what a model's bound promises in bits, as bytes that can be decoded.

    Autoregressive    each entry by its conditional: -log2 p(x) bits
    BitsBack          of a VAE: its latents cost what q(z | x) gives back, -ELBO bits
    Chain             of a Gaussian diffusion, bits-back from step to step (Bit-Swap, Kingma et al. 2019)
    progressive       lossy, x_t step by step: relative-entropy coding

Frequencies are integers of 24 bits made by the package `constriction` from probabilities in float64, none of them 0.
The encoder and the decoder agree bit for bit because both call the same compiled functions, with the same inputs and
batch sizes: the networks' outputs are then the same floats. Another version of jax, another device or another number
of CPU threads may sum in another order. So a file (`coding.file`) carries a checksum of the levels: a decoder that
disagrees is found out, and no wrong image is returned.
"""

from diffjax.coding.autoregressive import Autoregressive
from diffjax.coding.bits_back import BitsBack
from diffjax.coding.chain import Chain
from diffjax.coding.codec import Codec
from diffjax.coding.stack import Stack

__all__ = ["Autoregressive", "BitsBack", "Chain", "Codec", "Stack"]
