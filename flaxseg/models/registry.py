"""Networks by name, and configurations to and from JSON."""

import dataclasses
import fnmatch
import functools
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax import numpy as jnp
from jax.core import Tracer
from jax.typing import DTypeLike

from flaxseg.errors import ConfigError, did_you_mean
from flaxseg.models import bisenetv2, ccnet, segformer, setr, vitseg
from flaxseg.models.blocks import with_precision
from flaxseg.models.keys import DrawnKeys, NotedKeys, as_rngs
from flaxseg.ops import Precision
from flaxseg.ops.initializers import Draw

Config = (
    bisenetv2.BiSeNetV2Config
    | ccnet.CCNetConfig
    | segformer.SegFormerConfig
    | setr.SETRConfig
    | vitseg.ViTSegConfig
)
"""Any network's configuration: `num_classes`, `aux_weights`, `remat`, and its own fields."""

Model = bisenetv2.BiSeNetV2 | ccnet.CCNet | segformer.SegFormer | setr.SETR | vitseg.ViTSeg
"""Any network."""


class Architecture(NamedTuple):
    """One model file: its module class, its configuration class, its named variants."""

    model: Callable[..., Model]
    config: type[Config]
    variants: Mapping[str, Config]


ARCHITECTURES = {
    "bisenetv2": Architecture(bisenetv2.BiSeNetV2, bisenetv2.BiSeNetV2Config, bisenetv2.VARIANTS),
    "ccnet": Architecture(ccnet.CCNet, ccnet.CCNetConfig, ccnet.VARIANTS),
    "segformer": Architecture(segformer.SegFormer, segformer.SegFormerConfig, segformer.VARIANTS),
    "setr": Architecture(setr.SETR, setr.SETRConfig, setr.VARIANTS),
    "vitseg": Architecture(vitseg.ViTSeg, vitseg.ViTSegConfig, vitseg.VARIANTS),
}


def list_models(pattern: str = "*") -> list[str]:
    """Names that `create_model` takes, filtered by a shell pattern such as "ccnet_*"."""
    names = (name for entry in ARCHITECTURES.values() for name in entry.variants)
    return sorted(fnmatch.filter(names, pattern))


def get_config(name: str, **overrides: Any) -> Config:
    """The configuration of a named network, with some fields replaced.

    Args:
        name: one of `list_models()`.
        **overrides: field values; dotted names such as "backbone.width" reach nested fields.

    Raises:
        ConfigError: unknown name or field.
    """
    for entry in ARCHITECTURES.values():
        if name in entry.variants:
            return override(entry.variants[name], overrides)
    raise ConfigError(f"no network is called {name!r}{did_you_mean(name, list_models())}")


def create_model(
    name: str,
    num_classes: int | None = None,
    *,
    rngs: nnx.Rngs,
    dtype: DTypeLike = jnp.float32,
    param_dtype: DTypeLike = jnp.float32,
    matmul_precision: Precision = "highest",
    **overrides: Any,
) -> Model:
    """Builds a freshly initialised network in train mode.

    Args:
        name: one of `list_models()`.
        num_classes: classes to tell apart; the published number if None.
        rngs: source of the "params" keys.
        dtype: of the computation; norm statistics, softmax and logits are never below float32.
        param_dtype: of parameters and running statistics.
        matmul_precision: of float32 products on accelerators, see `flaxseg.ops.precision`.
        **overrides: configuration fields, as in `get_config`.

    Raises:
        ConfigError: unknown name, field or precision.
    """
    if num_classes is not None:
        overrides["num_classes"] = num_classes
    config = get_config(name, **overrides)
    model = fresh_model(config, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
    return with_precision(model, matmul_precision)


def fresh_model(
    config: Config,
    *,
    rngs: nnx.Rngs,
    dtype: DTypeLike = jnp.float32,
    param_dtype: DTypeLike = jnp.float32,
) -> Model:
    """The network of a configuration, with all its weights drawn by one program.

    Drawn one by one, each shape would compile a program of its own. The keys are the same.
    """
    if isinstance(jnp.zeros(()), Tracer):  # part of a program already
        return build(config, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
    plan = _plan(config, dtype, param_dtype, jnp.result_type(float))
    return nnx.merge(plan.graphdef, _drawing(config, dtype, param_dtype)(plan.keys(rngs)))


@functools.lru_cache(maxsize=16)
def _drawing(
    config: Config, dtype: DTypeLike, param_dtype: DTypeLike
) -> Callable[[jax.Array], nnx.State]:
    """The program from keys to variables."""

    def draw(keys: jax.Array) -> nnx.State:
        return nnx.state(_build(config, dtype, param_dtype, keys))

    return jax.jit(draw, compiler_options=drawing_compile())


def quick_compile() -> dict[str, str | bool]:
    """Compiler options for a program that runs once: made fast rather than fast."""
    known = jax.default_backend() in ("cpu", "gpu")
    return {"xla_backend_optimization_level": "0"} if known else {}


def drawing_compile() -> dict[str, str | bool]:
    """Compiler options for a program that draws weights.

    On CPUs level 0 would draw hundreds of millions of numbers several times slower.
    """
    on_cpu = jax.default_backend() == "cpu"
    return {"xla_backend_optimization_level": "1"} if on_cpu else quick_compile()


def build(
    config: Config,
    *,
    rngs: nnx.Rngs,
    dtype: DTypeLike = jnp.float32,
    param_dtype: DTypeLike = jnp.float32,
) -> Model:
    """Builds the network of a configuration inside a traced function; see `fresh_model`."""
    plan = _plan(config, dtype, param_dtype, jnp.result_type(float))
    return _build(config, dtype, param_dtype, plan.keys(rngs))


def _build(config: Config, dtype: DTypeLike, param_dtype: DTypeLike, keys: jax.Array) -> Model:
    plan = _plan(config, dtype, param_dtype, jnp.result_type(float))
    rngs = as_rngs(DrawnKeys(keys, plan.draws))
    return _construct(config, dtype, param_dtype, rngs)


def _construct(config: Config, dtype: DTypeLike, param_dtype: DTypeLike, rngs: nnx.Rngs) -> Model:
    model = ARCHITECTURES[architecture_of(config)].model
    return model(config, dtype=dtype, param_dtype=param_dtype, rngs=rngs)


def abstract_model(
    config: Config, *, dtype: DTypeLike = jnp.float32, param_dtype: DTypeLike = jnp.float32
) -> Model:
    """The network with shapes in place of arrays: costs no memory, whatever its size."""
    plan = _plan(config, dtype, param_dtype, jnp.result_type(float))
    return nnx.merge(plan.graphdef, plan.state, copy=True)


class _Plan(NamedTuple):
    """Structure and shapes of a network, and what it draws with which of its keys."""

    graphdef: nnx.GraphDef
    state: nnx.State
    count: int
    draws: Sequence[tuple[int, Draw]]

    def keys(self, rngs: nnx.Rngs) -> jax.Array:
        return jnp.stack([rngs.params() for _ in range(self.count)])


@functools.lru_cache(maxsize=64)
def _plan(config: Config, dtype: DTypeLike, param_dtype: DTypeLike, widest: jnp.dtype) -> _Plan:
    """What there is to know without numbers; a deep network takes a part of a second."""
    del widest  # whether JAX has float64 decides what becomes of `param_dtype`
    noted = NotedKeys()
    shapes = nnx.eval_shape(lambda: _construct(config, dtype, param_dtype, as_rngs(noted)))
    return _Plan(*nnx.split(shapes), noted.count, tuple(noted.draws))


def config_to_json(config: Config) -> dict[str, Any]:
    """The configuration as plain JSON values, with its architecture's name."""
    return {"architecture": architecture_of(config), **dataclasses.asdict(config)}


def config_from_json(values: dict[str, Any]) -> Config:
    """Rebuilds what `config_to_json` gave.

    Raises:
        ConfigError: unknown architecture or field, or a value of another type.
    """
    values = dict(values)
    name = values.pop("architecture", None)
    if name not in ARCHITECTURES:
        raise ConfigError(
            f"architecture {name!r} is unknown{did_you_mean(str(name), list(ARCHITECTURES))}"
        )
    return _replace(ARCHITECTURES[name].config(), values, "")


def override(config: Any, values: dict[str, Any]) -> Any:
    """Replaces fields of a configuration; dotted names reach nested ones.

    Raises:
        ConfigError: unknown field, or a value of another type.
    """
    return _replace(config, values, "")


def name_of(config: Config) -> str:
    """The registry name of a configuration, whatever its class count, `remat` and size of images.

    The name of its architecture if it is none of the variants.
    """
    architecture = architecture_of(config)
    same: dict[str, Any] = {"num_classes": config.num_classes, "remat": config.remat}
    for name, variant in ARCHITECTURES[architecture].variants.items():
        if _for_images_of(dataclasses.replace(variant, **same), config) == config:
            return name
    return architecture


def _for_images_of(variant: Config, config: Config) -> Config:
    """The variant for the only image size that a configuration takes, if there is one."""
    if config.fixed_size is None or variant.fixed_size is None:
        return variant
    try:
        return variant.with_image_size(config.fixed_size)
    except ConfigError:  # not whole patches of the variant's size
        return variant


def _replace(config: Any, values: dict[str, Any], prefix: str) -> Any:
    hints = typing.get_type_hints(type(config))
    changes = {}
    for key, value in _nest(values, prefix).items():
        if key not in hints:
            known = [prefix + name for name in hints]
            raise ConfigError(
                f"{type(config).__name__} has no field {prefix + key!r}"
                f"{did_you_mean(prefix + key, known)}"
            )
        current = getattr(config, key)
        if dataclasses.is_dataclass(current) and isinstance(value, dict):
            changes[key] = _replace(current, value, f"{prefix}{key}.")
        else:
            changes[key] = _checked(prefix + key, value, hints[key])
    return dataclasses.replace(config, **changes)


def _nest(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    """One level of dotted keys as dicts: {"a.b": 1, "a.c": 2} is {"a": {"b": 1, "c": 2}}."""
    nested: dict[str, Any] = {}
    for key, value in values.items():
        head, _, rest = key.partition(".")
        part = {rest: value} if rest else value
        if head not in nested:
            nested[head] = part
        elif isinstance(nested[head], dict) and isinstance(part, dict):
            nested[head] |= part
        else:
            raise ConfigError(f"field {prefix + head!r} is given both whole and in parts")
    return nested


def _checked(name: str, value: Any, hint: Any) -> Any:
    """The value as the field's type wants it: JSON knows no tuples, and 1 is a fine float."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_checked(f"{name}[{i}]", item, arguments[0]) for i, item in enumerate(value))
    if origin is typing.Literal and value in arguments:
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    expected = f"one of {arguments}" if origin is typing.Literal else hint
    expected = hint.__name__ if isinstance(hint, type) else expected
    raise ConfigError(f"field {name!r} is {value!r}, expected {expected}")


def architecture_of(config: Config) -> str:
    """The name of the model file, a key of `ARCHITECTURES`, that a configuration belongs to."""
    for name, entry in ARCHITECTURES.items():
        if type(config) is entry.config:
            return name
    raise ConfigError(f"{type(config).__name__} is not the configuration of a known network")
