"""Which weights learn faster or slower, and which do not decay: a table of rules over native keys.

Every rule whose pattern is found in a key multiplies the key's factors. Native keys are dotted
paths such as `backbone.blocks.3.norm1.weight`.
"""

import functools
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from rich.table import Table

from flaxseg.errors import ConfigError


class Factors(NamedTuple):
    """Of one tensor.

    Attributes:
        lr: factor of the learning rate.
        decay: factor of the weight decay.
    """

    lr: float = 1.0
    decay: float = 1.0


class Rule(NamedTuple):
    """One line of the table.

    Attributes:
        name: what the keys have in common.
        pattern: regular expression that is searched for in a native key.
        lr: factor of the learning rate.
        decay: factor of the weight decay.
    """

    name: str
    pattern: str
    lr: float = 1.0
    decay: float = 1.0


GroupFn = Callable[[str], Factors]
"""Native key -> factors."""

KINDS = {
    "layer_norm": r"(^|\.)norms?\d*(\.\d+)?\.(weight|bias)$",
    "batch_norm": r"(^|\.)(bn\d*|input_norm)\.(weight|bias)$",
    "bias": r"(^|\.)(bias|gamma)$",
    "position": r"(^|\.)(pos_embed|cls_token)$",
}
"""What `--no-decay` names. Scalars such as criss-cross attention's gamma count as biases."""

NO_DECAY = {"sgd": (), "adam": (), "adamw": (*KINDS,), "lamb": (*KINDS,), "lars": (*KINDS,)}
"""What does not decay unless told otherwise, by optimiser."""

_HEADS = r"^(head|aux_heads?)\."
_BLOCK = re.compile(r"^(?:backbone\.)?(?:stages\.(\d+)\.)?blocks\.(\d+)\.")
_EMBEDDINGS = r"^(backbone\.)?(pos_embed|cls_token|patch_embed\..*|input_norm\..*)$"


def make_rules(
    keys: Iterable[str],
    *,
    no_decay: Sequence[str] = (),
    head_lr: float = 1.0,
    layer_decay: float = 1.0,
) -> tuple[Rule, ...]:
    """The rules for a network.

    Args:
        keys: native keys of its parameters.
        no_decay: names in `KINDS` of what does not decay.
        head_lr: factor of the learning rate of main and auxiliary heads.
        layer_decay: factor from each block of a transformer to the one before it, as in BEiT and
            timm: the last block has it once, the embeddings once more than the first block.

    Raises:
        ConfigError: layer decay for an encoder without blocks of attention.
    """
    kinds = [Rule(name.replace("_", " "), KINDS[name], decay=0.0) for name in no_decay]
    heads = [Rule("heads", _HEADS, lr=head_lr)] if head_lr != 1 else []
    layers = _layer_rules(list(keys), layer_decay) if layer_decay != 1 else []
    return (*kinds, *heads, *layers)


def _layer_rules(keys: list[str], decay: float) -> list[Rule]:
    blocks = sorted(
        {
            (int(m[1] or 0), int(m[2]))
            for key in keys
            if (m := _BLOCK.match(key)) and ".attn." in key
        }
    )
    if not blocks:
        raise ConfigError(
            f"--layer-decay is {decay}, but this network's encoder is no transformer: leave it out"
        )
    staged = any(key.startswith("backbone.stages.") for key in keys)
    rules = [] if staged else [Rule("embeddings", _EMBEDDINGS, decay ** (len(blocks) + 1))]
    for number, (stage, block) in enumerate(blocks):
        where = rf"stages\.{stage}\." if staged else ""
        last = (stage, block + 1) not in blocks
        # A stage begins with its embedding and ends with its norm.
        also = [r"patch_embed\."] * (staged and block == 0) + [r"norm\."] * (staged and last)
        inside = "|".join([rf"blocks\.{block}\.", *also])
        pattern = rf"^(backbone\.)?{where}({inside})"
        rules.append(Rule("encoder blocks", pattern, decay ** (len(blocks) - number)))
    return rules


def match(rules: Sequence[Rule]) -> GroupFn:
    """The function from native key to factors that a table of rules stands for."""
    compiled = [(re.compile(rule.pattern), rule) for rule in rules]

    @functools.cache
    def factors(key: str) -> Factors:
        lr = decay = 1.0
        for pattern, rule in compiled:
            if pattern.search(key):
                lr, decay = lr * rule.lr, decay * rule.decay
        return Factors(lr, decay)

    return factors


def key_of(path: tuple[Any, ...]) -> str:
    """The native key of a leaf of a tree of parameters, from its path in the tree."""
    names = (str(getattr(step, "key", getattr(step, "idx", ""))) for step in path)
    return ".".join(name for name in names if name)


def map_groups(function: Callable[..., Any], groups: GroupFn, *trees: Any) -> Any:
    """`jax.tree.map` whose function takes a leaf's factors first."""
    return jax.tree.map_with_path(lambda path, *x: function(groups(key_of(path)), *x), *trees)


def groups_table(
    rules: Sequence[Rule], sizes: Mapping[str, int], frozen: Collection[str] = ()
) -> Table:
    """The rules, and how many tensors and parameters each reaches.

    Args:
        rules: of one network; those of one name share a line.
        sizes: native key -> number of parameters.
        frozen: keys of those that no rule reaches, as they do not learn.
    """
    still = {key: size for key, size in sizes.items() if key in frozen}
    sizes = {key: size for key, size in sizes.items() if key not in frozen}
    table = Table("weights", "tensors", "parameters", "lr ×", "decay ×", title="weight groups")
    for name in dict.fromkeys(rule.name for rule in rules):
        same = [rule for rule in rules if rule.name == name]
        found = [key for key in sizes if any(re.search(rule.pattern, key) for rule in same)]
        rates = dict.fromkeys(f"{rule.lr:.3g}" for rule in same)
        lr = f"{next(iter(rates))} … {next(reversed(rates))}" if len(rates) > 1 else [*rates][0]
        count = sum(sizes[key] for key in found)
        table.add_row(name, str(len(found)), f"{count:,}", lr, f"{same[0].decay:g}")
    plain = [key for key in sizes if match(rules)(key) == Factors()]
    table.add_row("others", str(len(plain)), f"{sum(sizes[key] for key in plain):,}", "1", "1")
    if still:
        table.add_row("frozen", str(len(still)), f"{sum(still.values()):,}", "0", "0")
    return table
