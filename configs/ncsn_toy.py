"""A score model of two far Gaussians in the plane: the toy of NCSN (Song & Ermon 2019, section 3.2.2 and figure 3).

1/5 N((-5, -5), I) + 4/5 N((5, 5), I), ten levels, 100 steps a level, as in the paper. That takes the true score where
this learns one, and levels from 20 to 1; from 50 to 0.2 the prior is nearer and less noise is left. It is trained at
all times between, so that every sampler and the likelihood can have it (`--config.sde.levels=10`: at ten levels alone).

Cost: minutes on 2 CPU cores. Expected: a weight of the first mode near 0.2 with noise levels and far from it without.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            system="score",
            parallel="jit",
            mesh=(("data", -1), ("model", 1)),
            data=dict(
                name="mixture",
                dir="",
                shape=(2,),
                levels=0,
                train_split="",
                test_split="",
                in_memory=True,
                num_train=100_000,
                num_test=2_000,
                weights=(0.2, 0.8),
                means=((-5.0, -5.0), (5.0, 5.0)),
                std=1.0,
            ),
            sde=dict(
                name="ve",  # ve | vp | sub_vp
                sigma_min=0.2,  # of ve
                sigma_max=50.0,
                beta_min=0.1,  # of vp and sub_vp
                beta_max=20.0,
                levels=0,  # noise levels of ve that are trained on; 0: all times
                weighting="simple",  # simple: sigma² | likelihood: g²
            ),
            net=dict(name="mlp", features=(128, 128, 128)),
            sampling=dict(
                sampler="annealed_langevin",  # or predictor_corrector | probability_flow, or a predictor by itself
                steps=10,  # levels of annealed_langevin; else steps
                corrector_steps=100,  # Langevin steps at a level
                step_size=0.004,  # of annealed_langevin at the lowest level, sigma²/10, x + h s + √(2h) z
                predictor="reverse_diffusion",  # ancestral | euler_maruyama | reverse_diffusion | ddim | heun | none
                snr=0.16,  # of predictor_corrector
            ),
            evaluation=dict(
                batch_size=1000,
                num_examples=0,
                num_terms=0,
                bound_steps=1000,  # of the bound's grid, where sde.levels is 0
                grid=2000,
                flow_examples=1000,  # for log p by the probability flow; 0: none
                parzen_samples=0,
            ),
            training=dict(
                steps=6000,
                batch_size=512,
                learning_rate=1e-3,
                warmup=100,
                grad_clip=1.0,
                ema_decay=0.999,
                flip=False,
                seed=0,
                log_every=500,
                eval_every=3000,
                save_every=3000,
                keep_every=0,
                accumulate=1,
                on_bad_step="stop",
                grad_limit=0.0,
                data_timeout=600.0,
            ),
        )
    )
