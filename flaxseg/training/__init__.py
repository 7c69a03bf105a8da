"""Training: settings and recipes, the compiled step, checkpoints, and the loop `fit`."""

from flaxseg.training.config import TrainConfig as TrainConfig
from flaxseg.training.loop import fit as fit
from flaxseg.training.recipes import RECIPES as RECIPES
from flaxseg.training.recipes import make_config as make_config
from flaxseg.training.workdir import FitResult as FitResult
