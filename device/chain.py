"""Go from file to file of a model that is one file a stage, as an Edge TPU takes it.

The card of each names the next.  exits.py hands over to `parts` for the first of them.
"""

from __future__ import annotations

import os

import infer


class Part:
    """A stage in a file of its own, called as a runtime's signature runner is.

    Its tensors are in the order in which tfedge wrote them: ``inputs``, where the stage takes the
    network's own, then features; ``logits``, then features.

    Args:
      model: The `Classifier` of the file.
      takes, gives: The names of the features that it takes, and hands on.
    """

    def __init__(self, model, takes, gives):
        self._interpreter = model._interpreter
        ins, outs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        names = ["inputs"][: len(ins) - len(takes)] + list(takes)
        if len(names) != len(ins) or len(outs) != 1 + len(gives):
            raise ValueError(f"{len(ins)} inputs and {len(outs)} outputs")
        fed, answered = ins[0]["shape"].tolist(), outs[0]["shape"].tolist()
        if "inputs" in names and fed != [1, *model.shape]:
            raise ValueError(f"it takes {fed}")
        if answered != [1, len(model.labels)]:
            raise ValueError(f"it answers {answered}")
        self.inputs = dict(zip(names, ins))
        self.outputs = dict(zip(["logits", *gives], outs))

    def __call__(self, **given):
        """Return what the stage makes of what it takes, by name: int8 [1, ...] each."""
        for name, tensor in self.inputs.items():
            self._interpreter.set_tensor(tensor["index"], given[name])
        self._interpreter.invoke()
        named = self.outputs.items()
        return {name: self._interpreter.get_tensor(tensor["index"]) for name, tensor in named}


def parts(model, path, threads=0, delegate="auto"):
    """Return the `Part` of each stage; the files lie beside the first one.

    Args:
      model: The `Classifier` of the first file.
      path: That file's.
      threads, delegate: As `Classifier` takes them.
    """
    first, found = model.card["exits"], []
    try:
        if first["stage"]:
            said = f"is stage {first['stage']} of a model of several files"
            raise infer.ModelError(f"{path}: {said}; give the first, which names the others")
        features = [[], *first["features"], []]
        for number in range(len(first["signatures"])):
            if number:
                name = os.path.basename(model.card["exits"]["next"])
                path = os.path.join(os.path.dirname(path), name)
                model = _following(model, path, number, threads, delegate)
            found.append(Part(model, *features[number : number + 2]))
            if number:
                _fit(*found[-2:])
    except infer._DAMAGED as error:
        said = f"{path}: its stage is not what the first file says; copy all of them again"
        raise infer.ModelError(f"{said} ({infer._line(error)})") from error
    return found


def _following(model, path, number, threads, delegate):
    """Return the `Classifier` of the file behind that of `model`."""
    if not os.path.isfile(path):
        raise infer.ModelError(f"{path}: is not there, and holds stage {number}; copy it there")
    found = infer.Classifier(path, threads, delegate)
    same = (found.card["made_by"], found.card["exits"]["stage"]) == (model.card["made_by"], number)
    if not same:
        said = f"{path}: is not stage {number} of the same build; copy all files of one"
        raise infer.ModelError(said)
    return found


def _fit(one, other):
    """Refuse two stages of which one takes other features than the one before hands on."""
    for name in (name for name in other.inputs if name != "inputs"):
        tensors = one.outputs[name], other.inputs[name]
        made, taken = ((end["shape"].tolist(), end["quantization"]) for end in tensors)
        if made != taken:
            raise ValueError(f"{name} is {made} there and {taken} here")
