"""Optimisers and learning rates, step by step equal to torch's."""

from flaxseg.training.optim.checks import check_combinations as check_combinations
from flaxseg.training.optim.checks import check_parts as check_parts
from flaxseg.training.optim.groups import Factors as Factors
from flaxseg.training.optim.groups import make_rules as make_rules
from flaxseg.training.optim.groups import match as match
from flaxseg.training.optim.optimizers import make_optimizer as make_optimizer
from flaxseg.training.optim.schedules import LearningRate as LearningRate
from flaxseg.training.optim.schedules import make_schedule as make_schedule
