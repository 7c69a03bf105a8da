"""The published layouts: one small table in one file for each origin and architecture."""

from convert.formats import (
    coincheung_bisenetv2,
    huggingface5_segformer,
    huggingface_mit,
    huggingface_segformer,
    mmseg_bisenetv2,
    mmseg_ccnet,
    mmseg_mit,
    mmseg_resnet,
    mmseg_segformer,
    mmseg_setr,
    notebook_vitseg,
    nvlabs_mit,
    nvlabs_segformer,
    original_ccnet,
    original_setr,
    timm_vit,
    timm_vitseg,
    torchvision_resnet,
    tutorial_bisenetv2,
    tutorial_ccnet,
    tutorial_segformer,
    tutorial_setr,
)
from convert.formats.format import Format as Format
from convert.formats.format import Imported as Imported
from convert.formats.torch_ref import native_keys
from flaxseg.errors import ConfigError
from flaxseg.models.registry import ARCHITECTURES

FORMATS: tuple[Format, ...] = tuple(
    module.FORMAT
    for module in (
        coincheung_bisenetv2,
        huggingface5_segformer,
        huggingface_mit,
        huggingface_segformer,
        mmseg_bisenetv2,
        mmseg_ccnet,
        mmseg_mit,
        mmseg_resnet,
        mmseg_segformer,
        mmseg_setr,
        notebook_vitseg,
        nvlabs_mit,
        nvlabs_segformer,
        original_ccnet,
        original_setr,
        timm_vit,
        timm_vitseg,
        torchvision_resnet,
        tutorial_bisenetv2,
        tutorial_ccnet,
        tutorial_segformer,
        tutorial_setr,
    )
)
"""The published ones."""

TORCH_REF = tuple(native_keys(architecture, FORMATS) for architecture in ARCHITECTURES)
"""Those of the project's own PyTorch networks."""


def load_format(name: str, architecture: str) -> Format:
    """The layout in which an origin stores an architecture.

    Args:
        name: the origin, such as "mmseg".
        architecture: a network of `flaxseg.models.registry.ARCHITECTURES`, such as "ccnet",
            or the encoder that the files hold, such as "resnet".

    Raises:
        ConfigError: there is no such format.
    """
    for format_ in (*FORMATS, *TORCH_REF):
        if (format_.name, format_.architecture) == (name, architecture):
            return format_
    known = ", ".join(f"{f.name} {f.architecture}" for f in (*FORMATS, *TORCH_REF))
    raise ConfigError(f"no format is called {name} {architecture}; known: {known}")
