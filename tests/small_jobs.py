"""Stages run by themselves, on a small network of stripes and a wider one that may teach it."""

from small_data import stripes

from tfedge.plan.job import MODEL, Job
from tfedge.progress import Silent


def folders(place):
    """Save both networks, untrained; return their folders as a job's inputs."""
    from models.small import stack
    from tfedge.networks.backend import keras, seed_everything
    from tfedge.networks.saving import save_model

    for name, widths in {"of": (4, 8), "teacher": (6, 8)}.items():
        keras.backend.clear_session()
        seed_everything(len(name))
        (place / name).mkdir()
        save_model(stack((8, 8, 1), 4, widths=widths), place / name / MODEL)
    return {name: place / name for name in ("of", "teacher")}


def job(inputs, out, lessons=None):
    """Return what a stage called x is handed."""
    out.mkdir()
    data = stripes(train=128, tune=64)
    return Job(
        name="x",
        out=out,
        scratch=out / "scratch",
        inputs=inputs,
        data=data,
        augment=("flip",),
        seed=3,
        code=(),
        progress=Silent(),
        made_by={},
        pipeline_mean=data.mean,
        pipeline_std=data.std,
        lessons=lessons,
    )


def trained(stage, inputs, out, lessons=None):
    """Run a stage; return the weights that it made, and its figures."""
    from tfedge.networks.saving import load_model

    figures = stage.run(job(inputs, out, lessons))
    return load_model(out / MODEL).get_weights(), figures
