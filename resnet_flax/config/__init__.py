"""Configs: the table of keys, names such as ``residual-56``, derived values, and validation.

A config is an ``ml_collections.ConfigDict``. The files in ``configs/`` start from :func:`base` and change what
their data set needs. :func:`validate` checks every config before anything is compiled.

To add a key, write its row in table.py and run ``python -m resnet_flax.config > docs/config.md``.
"""

from resnet_flax.config.comparison import PREPROCESSING_KEYS, differences, for_evaluation, with_network_of
from resnet_flax.config.derived import follow, milestones, resolve, unresolved
from resnet_flax.config.files import config_path, from_json, load, set_by_user, to_json, track_changes
from resnet_flax.config.key import Key
from resnet_flax.config.names import (
    DEPTH_KEYS,
    NAME_KEYS,
    NETWORK_KEYS,
    apply_name,
    check_depth,
    layers_of,
    name_of,
    network_name,
)
from resnet_flax.config.own_code import (
    checksums,
    defining_files,
    execute,
    executed_once,
    explain_error,
    explain_own_error,
    note_executed,
    own_files,
)
from resnet_flax.config.page import keys_in_help
from resnet_flax.config.suggestions import namesakes, not_a_key, unknown_key
from resnet_flax.config.table import DERIVED, KEYS, RESUME_MAY_CHANGE, base, flatten, in_memory
from resnet_flax.config.validation import check_names, hint_at_module, names_in, validate, where_defined, without_effect

__all__ = [
    "DEPTH_KEYS", "DERIVED", "KEYS", "NAME_KEYS", "NETWORK_KEYS", "PREPROCESSING_KEYS", "RESUME_MAY_CHANGE",
    "Key", "apply_name", "base",
    "check_depth", "check_names", "checksums", "config_path", "defining_files", "differences", "execute",
    "executed_once", "explain_error", "explain_own_error", "flatten", "follow", "for_evaluation", "from_json",
    "hint_at_module", "in_memory", "keys_in_help", "layers_of", "load", "milestones", "name_of", "names_in",
    "namesakes", "network_name", "not_a_key", "note_executed", "own_files", "resolve", "set_by_user", "to_json",
    "track_changes", "unknown_key", "unresolved", "validate", "where_defined", "with_network_of", "without_effect",
]  # fmt: skip
