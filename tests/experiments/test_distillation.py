"""A run that distils another: it begins with the teacher's parameters, and keeps them beside its own."""

import jax
import numpy as np
import pytest

from configs import cm_digits, edm_digits, progressive_digits
from diffjax.errors import InputError
from diffjax.training.checkpoint import Checkpointer
from experiments import parameters
from experiments.opened import check_teacher, open_run, open_to_train
from experiments.workdir import write_json


def configuration(module, **fields):
    config = module.get_config()
    config.net.update(channels=4, multipliers=(1,), num_blocks=1, attention=())
    config.evaluation.update(grid=4, num_examples=8, batch_size=8, num_terms=1, flow_examples=0)
    config.training.update(steps=2, batch_size=8, eval_every=0, save_every=0, keep_every=1)
    config.update_from_flattened_dict(fields)
    return config


def begun(config, workdir, given=None):
    """The state with which a run begins, of which nothing is trained."""
    opened = open_run(config, workdir)
    workdir.mkdir()
    write_json(workdir / "config.json", opened.saved)
    parameters.start(opened, parameters.given_to(opened) if given is None else given)
    with Checkpointer(opened.checkpoints, read_only=True) as checkpointer:
        return checkpointer.restore(parameters.wanted_of(opened), 0)[0]


@pytest.mark.slow
def test_a_student_begins_with_its_teacher_and_keeps_it(tmp_path):
    teacher = begun(
        configuration(progressive_digits, **{"system": "ddpm", "training.seed": 1}), tmp_path / "teacher", {}
    )
    config = configuration(progressive_digits, **{"distillation.teacher": str(tmp_path / "teacher")})
    student = begun(config, tmp_path / "student")
    for kept in (student.params, student.ema, student.memory["teacher"]):
        jax.tree.map(np.testing.assert_array_equal, kept, teacher.ema)
    config.net.channels = 8
    with pytest.raises(
        InputError, match=r"distillation.teacher=.* not of the same sizes: name a run with the same net"
    ):
        parameters.given_to(open_run(config, tmp_path / "wide"))


def test_a_teacher_has_to_be_named_and_to_mean_the_same(tmp_path):
    with pytest.raises(InputError, match=r"distillation.teacher names no run: .*--config.distillation.teacher="):
        open_to_train(configuration(progressive_digits), tmp_path)
    student = open_run(configuration(cm_digits, **{"distillation.teacher": str(tmp_path)}), tmp_path / "a")
    assert student.distils and student.init_from == str(tmp_path)
    check_teacher(student, open_run(configuration(edm_digits), tmp_path))
    other = open_run(configuration(edm_digits, **{"sde.sigma_data": 0.5}), tmp_path)
    with pytest.raises(InputError, match=r"sde.sigma_data=0.75, but the teacher's is 0.5: set sde.sigma_data=0.5"):
        check_teacher(student, other)
    with pytest.raises(InputError, match=r"is a run of 'ddpm' without a section sde"):
        check_teacher(student, open_run(configuration(progressive_digits, system="ddpm"), tmp_path))
    alone = open_run(configuration(cm_digits), tmp_path)
    assert not alone.distils and alone.init_from == ""
