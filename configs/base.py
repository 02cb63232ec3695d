"""What every run's configuration has: devices, data, sampling, evaluation and training. It is no run by itself.

A configuration begins with it, adds its system and the system's own sections, and changes what differs.
"""

from ml_collections import ConfigDict

# Of diffusion models: fields of `sampling` that samplers and their grids of times take.
SAMPLERS = dict(
    spacing="",  # of the times: karras | log_snr | time | exponential; empty: the chain's own, or equidistant
    rho=7.0,  # of karras
    order=2,  # of unipc: 1, 2 or 3
    churn=0.0,  # of euler and heun: S_churn of Karras et al. 2022
    churn_noise=1.0,  # S_noise
    restart_levels=(0.05, 0.3),  # of restart: noise levels sigma/alpha
    restarts=3,
    restart_steps=5,
    diffusion=1.0,  # of interpolant_sde: g²/sigma, 0 without noise
)


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            parallel="jit",  # or "pmap"
            init_from="",  # a run's workdir, or a file of diffjax.nets.published, whose weights training begins with
            mesh=(("data", -1), ("model", 1)),  # "model" divides the state; -1: what is left of the devices
            data=dict(  # a run adds name, shape, and levels: how many values an element takes, 0 for real numbers
                dir="",  # of your own data; of TFDS, where empty is $TFDS_DATA_DIR, else TFDS's own default
                train_split="",  # of TFDS; a set that has one division into training and test needs no names
                test_split="",  # of your own data: sub-folders or files of `dir`; empty: the next two divide them
                test_fraction=0.1,  # of your own data that is held out
                split_seed=0,  # which part of it
                num_train=0,  # of sets that are drawn: how many; of a folder of images: so many crops, 0: whole images
                num_test=0,
                in_memory=True,
            ),
            logging=dict(wandb=False),  # True: to Weights & Biases, too
            sampling=dict(sampler="ancestral", steps=1),
            evaluation=dict(
                batch_size=100,
                num_examples=0,  # of the test split; 0: all
                num_terms=0,  # of the bound's L_t, drawn per example; 0: the whole sum
                ema_width=0.0,  # of the mean that is measured and sampled from, see training.ema_widths; 0: ema_decay's
                grid=64,  # images in the grid, or points in the pictures
                quality="",  # features to compare samples and data by: pixels, run:DIR, ...; several with commas
                quality_samples=1000,
                quality_examples=0,  # of the data; 0: all
                quality_reference="train",  # or "test": the data's split
                quality_kept=5000,  # of each side, for what needs pairs of examples
                quality_while_training=False,  # also at every eval_every
            ),
            training=dict(
                steps=3000,
                batch_size=100,
                learning_rate=1e-3,
                warmup=100,  # steps until the learning rate is reached
                decay="constant",  # of the learning rate after that: constant | cosine, to 0 at `steps` | inverse_sqrt
                weight_decay=0.0,  # AdamW's; 0: Adam
                grad_clip=1.0,  # largest norm of the gradient; 0: any
                ema_decay=0.999,  # of the running mean of the parameters
                ema_widths=(),  # of more means, beside that one: shares of training (EDM2's sigma_rel), as (0.05, 0.1)
                flip=False,  # mirror each image left-right with probability 1/2
                seed=0,
                log_every=500,  # steps, as the next three
                eval_every=0,  # 0: only at the end
                save_every=0,  # 0: only at the end
                keep_every=0,  # checkpoints that stay for ever, beside the last two; 0: only the last two
                accumulate=1,  # parts of a batch, one after the other
                on_bad_step="stop",  # stop | skip
                grad_limit=0.0,  # above it a gradient has exploded; 0: only what is not finite is bad
                data_timeout=600.0,  # seconds
            ),
        )
    )
