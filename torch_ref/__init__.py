"""The networks of `flaxseg.models` in plain PyTorch, NCHW: read them to see what is computed.

Classes, attributes and configurations are those of flaxseg, so parameters have the same names,
and both read the same model directories.

>>> import torch_ref
>>> model = torch_ref.create_model("ccnet", num_classes=11)
"""

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as _error:
    raise ImportError("torch_ref needs PyTorch: pip install 'flaxseg[torch]'") from _error

from torch_ref.bisenetv2 import BiSeNetV2 as BiSeNetV2
from torch_ref.blocks import Output as Output
from torch_ref.ccnet import CCNet as CCNet
from torch_ref.files import load as load
from torch_ref.files import save as save
from torch_ref.mit import MiT as MiT
from torch_ref.registry import create_model as create_model
from torch_ref.resnet import ResNet as ResNet
from torch_ref.segformer import SegFormer as SegFormer
from torch_ref.setr import SETR as SETR
from torch_ref.vit import ViT as ViT
from torch_ref.vitseg import ViTSeg as ViTSeg
