import json

import numpy as np
import pytest

from tfedge.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def k():
    from tfedge.training import keeper

    return keeper


def model(k, seed=0):
    k.keras.utils.set_random_seed(seed)
    made = k.keras.Sequential([k.keras.layers.Dense(2, input_shape=(3,))])
    made.compile("adam", "mse")
    return made


def epochs(k, folder, scores, seed=0, **options):
    """Pretend epochs of these tune accuracies; the weights of epoch n are all n."""
    keeper, net = k.Keeper(folder, **options), model(k, seed)
    keeper.set_model(net)
    first = keeper.resume(net)
    for epoch, score in enumerate(scores[first:], first):
        net.set_weights([np.full_like(w, epoch) for w in net.get_weights()])
        keeper.on_epoch_end(epoch, {"val_accuracy": score, "val_loss": 1.0})
        if net.stop_training:
            break
    return keeper, net


def value(net):
    return float(net.get_weights()[0][0, 0])


def test_of_equal_accuracies_the_lowest_loss_wins(k, tmp_path):
    keeper = k.Keeper(tmp_path)
    keeper.history = [{"val_accuracy": 0.5, "val_loss": loss} for loss in (3.0, 1.0, 2.0)]
    assert keeper.best == 1


def test_only_the_best_weights_stay_on_disk(k, tmp_path):
    keeper, net = epochs(k, tmp_path, [0.1, 0.5, 0.4, 0.3])
    assert [file.name for file in tmp_path.glob("best-*")] == ["best-0001.npz"]
    assert value(net) == 3
    keeper.restore_best(net)
    assert value(net) == 1


@pytest.mark.parametrize(("patience", "ran"), [(0, 6), (1, 3), (2, 4), (9, 6)])
def test_patience_counts_the_epochs_since_the_best(k, tmp_path, patience, ran):
    keeper, net = epochs(k, tmp_path, [0.1, 0.5, 0.4, 0.3, 0.2, 0.1], patience=patience)
    assert len(keeper.history) == ran
    assert bool(net.stop_training) == (patience in (1, 2))


def test_patience_does_not_run_while_pruning_is_under_way(k, tmp_path):
    keeper, _ = epochs(k, tmp_path, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], patience=2, first=3)
    assert len(keeper.history) == 6
    assert keeper.best == 3


def test_a_kill_between_the_history_and_the_state_loses_that_epoch_alone(k, tmp_path):
    epochs(k, tmp_path, [0.1, 0.5, 0.4])
    file = tmp_path / "history.json"
    history = json.loads(file.read_text())
    file.write_text(json.dumps([*history, {"val_accuracy": 0.9, "val_loss": 1.0}]))
    np.savez(tmp_path / "best-0003.npz", np.zeros(1))  # as far as the kill had come

    keeper, net = epochs(k, tmp_path, [0, 0, 0, 0.3], seed=1)
    assert [row["val_accuracy"] for row in keeper.history] == [0.1, 0.5, 0.4, 0.3]
    keeper.restore_best(net)
    assert value(net) == 1


@pytest.mark.parametrize("pattern", ["history.json", "ckpt-*.index"])
def test_a_damaged_state_is_named_with_what_to_do(k, tmp_path, pattern):
    epochs(k, tmp_path, [0.1])
    (file,) = tmp_path.glob(pattern)
    file.write_bytes(file.read_bytes()[:5])
    with pytest.raises(UserError, match="holds a damaged state") as caught:
        k.Keeper(tmp_path).resume(model(k))
    assert "remove that folder" in str(caught.value)
