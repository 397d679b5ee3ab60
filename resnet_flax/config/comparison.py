"""Comparison of a run's config with the one given now."""

from collections.abc import Set

from ml_collections import ConfigDict

from resnet_flax.config.derived import resolve
from resnet_flax.config.names import NAME_KEYS
from resnet_flax.config.table import KEYS, RESUME_MAY_CHANGE, flatten
from resnet_flax.errors import UserError


def differences(old: ConfigDict, new: ConfigDict) -> list[str]:
    """Lists the keys in which a run's config (``old``) and the one given now (``new``) differ, with both values.

    Differences with which the run may resume are left out: keys that may change, and larger values of keys that may
    grow.
    """
    a, b = flatten(old), flatten(new)

    def fits(name: str) -> bool:
        rule = KEYS[name].resume if name in KEYS else "same"
        grown = rule == "may grow" and a.get(name, 0) <= b.get(name, 0)
        # An earlier version left it 0 for a schedule of the user's own.
        unset = name == "schedule.decay_steps" and not a.get(name)
        return a.get(name) == b.get(name) or rule == "may change" or grown or unset

    names = sorted(name for name in a.keys() | b.keys() if not fits(name))
    return [f"{name}: {a.get(name)!r} there, {b.get(name)!r} now" for name in names]


def for_evaluation(c: ConfigDict) -> ConfigDict:
    """Copies a config and resets the keys that only streamed training reads, so that evaluation accepts it."""
    c = c.copy_and_resolve_references()
    c.update_from_flattened_dict({key.name: key.default for key in KEYS.values() if key.only and key.protocol})
    return c


# Keys of the preprocessing of images, which a network takes along to other data.
PREPROCESSING_KEYS = ("image_size", "resize", "interpolation", "normalization")


def with_network_of(trained: ConfigDict, given: ConfigDict, set_by_user: Set[str], where: str) -> ConfigDict:
    """Returns the given config, resolved, with a trained network's section ``model`` and preprocessing of images.

    BN is re-estimated over batches of the trained network's size, unless the user sets it.

    For the same data set, the other keys of ``data`` are those of training, too, except where the images are: the split
    is then the same. A key of ``data`` that the user sets keeps the user's value, and a new image size its own
    ``data.resize``.

    The given config describes how to evaluate that network. Its file cannot know which settings training took from
    pretrained weights or from its command line. So only two kinds of ``model`` keys must agree with the trained
    network: those that the config's name sets, and those that the user sets now.

    Args:
      trained: The config of the trained network.
      given: The config that the user names now.
      set_by_user: The keys of ``given`` that its command line sets.
      where: The place of the trained network, for messages.

    Raises:
      UserError: ``given`` names another network.
    """
    trained, given = resolve(trained), resolve(for_evaluation(given))
    named = {*NAME_KEYS, *set_by_user}
    differing = [d for d in differences(trained, given) if d.startswith("model.") and d.partition(":")[0] in named]
    if differing:
        raise UserError(f"{where} holds another network than --config names: {'; '.join(differing)}")
    given.model = trained.model
    kept = {*RESUME_MAY_CHANGE, *set_by_user, *(["data.resize"] if "data.image_size" in set_by_user else [])}
    for key in ("batch_size", "bn_group"):
        if f"train.{key}" not in set_by_user:
            given.train[key] = trained.train[key]
    for key in flatten(trained.data) if given.data.name == trained.data.name else PREPROCESSING_KEYS:
        if f"data.{key}" not in kept:
            given.data[key] = trained.data[key]
    return given
