"""Measures a network on the device at hand: `flaxseg bench`."""

from flaxseg.bench.ceilings import Ceilings as Ceilings
from flaxseg.bench.ceilings import measure_ceilings as measure_ceilings
from flaxseg.bench.programs import PROGRAMS as PROGRAMS
from flaxseg.bench.programs import Batch as Batch
from flaxseg.bench.programs import Costs as Costs
from flaxseg.bench.programs import Inference as Inference
from flaxseg.bench.programs import Mode as Mode
from flaxseg.bench.programs import Training as Training
from flaxseg.bench.programs import random_batch as random_batch
from flaxseg.bench.programs import without_cache as without_cache
from flaxseg.bench.samples import Samples as Samples
from flaxseg.bench.samples import take_turns as take_turns
