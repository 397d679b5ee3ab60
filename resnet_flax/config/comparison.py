"""The comparison of two configs: a run's and the one now given."""

from collections.abc import Set

from ml_collections import ConfigDict

from resnet_flax.config.derived import resolve
from resnet_flax.config.names import NAME_KEYS
from resnet_flax.config.table import KEYS, flatten
from resnet_flax.errors import UserError


def differences(old: ConfigDict, new: ConfigDict) -> list[str]:
    """Lists the keys in which a run's config and the one now given differ, with both values.

    Keys that may change when a run resumes, or that grew where they may grow, are left out.
    """
    a, b = flatten(old), flatten(new)

    def fits(name: str) -> bool:
        rule = KEYS[name].resume if name in KEYS else "same"
        grown = rule == "may grow" and a.get(name, 0) <= b.get(name, 0)
        return a.get(name) == b.get(name) or rule == "may change" or grown

    names = sorted(name for name in a.keys() | b.keys() if not fits(name))
    return [f"{name}: {a.get(name)!r} there, {b.get(name)!r} now" for name in names]


def for_evaluation(c: ConfigDict) -> ConfigDict:
    """Copies a config, with the defaults for what only training from disk reads, so that evaluation refuses none."""
    c = c.copy_and_resolve_references()
    c.update_from_flattened_dict({key.name: key.default for key in KEYS.values() if key.only and key.protocol})
    return c


def with_network_of(trained: ConfigDict, given: ConfigDict, set_by_user: Set[str], where: str) -> ConfigDict:
    """Returns the config given, resolved, with the section ``model`` of a trained network, to evaluate that network.

    A config's file knows neither what training took from pretrained weights nor what its command line set, so of the
    keys of ``model`` only what the config's name says, and what the user sets now, must be the trained network's.

    Args:
      set_by_user: keys of the config given that the command line sets.
      where: the trained network lies, for messages.

    Raises:
      UserError: the config given names another network.
    """
    trained, given = resolve(trained), resolve(for_evaluation(given))
    named = {*NAME_KEYS, *set_by_user}
    differing = [d for d in differences(trained, given) if d.startswith("model.") and d.partition(":")[0] in named]
    if differing:
        raise UserError(f"{where} holds another network than --config names: {'; '.join(differing)}")
    given.model = trained.model
    return given
