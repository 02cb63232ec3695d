"""The fields that all configurations share: devices, data, sampling, evaluation and training. Not a run by itself.

Every configuration starts from this one, adds its system and the system's sections, and changes what differs.
"""

from ml_collections import ConfigDict

# For diffusion models: fields of `sampling` for the samplers and their time grids.
SAMPLERS = dict(
    spacing="",  # of the times: karras | log_snr | time | exponential; empty: the chain's own, or equidistant
    rho=7.0,  # for spacing karras
    order=2,  # for unipc: 1, 2 or 3
    churn=0.0,  # for euler and heun: S_churn of Karras et al. 2022
    churn_noise=1.0,  # S_noise
    restart_levels=(0.05, 0.3),  # for restart: noise levels sigma/alpha
    restarts=3,
    restart_steps=5,
    diffusion=1.0,  # for interpolant_sde: g²/sigma; 0: no noise
)


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            parallel="jit",  # or "pmap"
            init_from="",  # initial weights, if not empty: from a run's workdir, or a file of diffjax.nets.published
            mesh=(("data", -1), ("model", 1)),  # "model" divides the state; -1: all remaining devices
            data=dict(  # a run adds name, shape, and levels: how many values an element takes, 0 for real numbers
                dir="",  # of your own data, or of TFDS; for TFDS empty is $TFDS_DATA_DIR, else TFDS's own default
                # For TFDS, names of splits; for your own data, sub-folders or files of `dir`. If both are empty, the
                # next two fields divide your data. Embedded sets have a fixed division.
                train_split="",
                test_split="",
                test_fraction=0.1,  # the fraction of your own data to hold out
                split_seed=0,  # chooses the held-out examples
                num_train=0,  # of random sets: examples to draw; of a folder of images: random crops, 0: whole images
                num_test=0,
                in_memory=True,
            ),
            logging=dict(wandb=False),  # True: also log to Weights & Biases
            sampling=dict(sampler="ancestral", steps=1),
            evaluation=dict(
                batch_size=100,
                num_examples=0,  # of the test split; 0: all
                num_terms=0,  # terms L_t of the bound to draw for each example; 0: the whole sum
                ema_width=0.0,  # evaluate and sample with the average of this width, see ema_widths; 0: of ema_decay
                coded_examples=0,  # examples to code and decode again, for systems with a codec; 0: none
                grid=64,  # images in the grid, or points in the pictures
                quality="",  # features to compare samples with data: pixels, run:DIR, ...; separated by commas
                quality_samples=1000,
                quality_examples=0,  # of the data; 0: all
                quality_reference="train",  # or "test": the data's split
                quality_kept=5000,  # samples and examples to keep, for measures that need pairs of them
                quality_while_training=False,  # also measure every eval_every steps
                modes=(),  # centres of the data's modes: measure which of them samples cover
                mode_radius=0.6,  # a sample within this distance is near a mode
                mode_samples=10_000,
            ),
            training=dict(
                steps=3000,
                batch_size=100,
                learning_rate=1e-3,
                warmup=100,  # steps until the learning rate is reached
                decay="constant",  # of the learning rate after that: constant | cosine, to 0 at `steps` | inverse_sqrt
                weight_decay=0.0,  # AdamW's; 0: Adam
                grad_clip=1.0,  # largest norm of the gradient; 0: no clipping
                ema_decay=0.999,  # of the running mean of the parameters
                ema_widths=(),  # more averages, such as (0.05, 0.1): widths as shares of training (EDM2's sigma_rel)
                flip=False,  # mirror each image left-right with probability 1/2
                seed=0,
                log_every=500,  # in steps, like the next three
                eval_every=0,  # 0: only at the end
                save_every=0,  # 0: only at the end
                keep_every=0,  # these checkpoints are never deleted, nor are the last two; 0: only the last two
                accumulate=1,  # divide a batch into so many parts, processed one after the other
                on_bad_step="stop",  # stop | skip
                grad_limit=0.0,  # a larger gradient norm makes a step bad; 0: no limit
                data_timeout=600.0,  # seconds to wait for a batch
            ),
        )
    )
