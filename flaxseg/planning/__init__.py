"""What a training step costs on devices that need not be there."""

from flaxseg.planning.memory import DoesNotFit as DoesNotFit
from flaxseg.planning.plan import Plan as Plan
from flaxseg.planning.plan import make_plan as make_plan
from flaxseg.planning.topology import Topology as Topology
from flaxseg.planning.topology import find_topology as find_topology
