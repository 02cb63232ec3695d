"""A module that stands in for wandb and keeps what it is told."""

import types


class Error(Exception):
    pass


def wandb(refuses: str = "") -> types.ModuleType:
    """Its `runs` are namespaces: `given` to init, `logged` lines, `metrics` with an axis of their own, `finished`."""
    module = types.ModuleType("wandb")
    module.runs, module.Error = [], Error

    def init(**given):
        if refuses:
            raise Error(refuses)
        run = types.SimpleNamespace(given=given, logged=[], metrics=[], finished=False)
        run.log = run.logged.append
        run.define_metric = lambda name, **axis: run.metrics.append((name, axis))
        run.finish = lambda: setattr(run, "finished", True)
        module.runs.append(run)
        return run

    module.init = init
    module.Settings = dict
    module.Image = lambda path: ("image", path)
    module.Video = lambda path, format: ("video", path, format)
    return module
