"""The settings of a training run, by what they are about.

Each group is a frozen dataclass whose fields become flags. Its `LIMITS` say what their values must
be. Its `FREE` names what a resumed run may change: what does not alter what is learnt from which
batch. Of these, `SCORED` alter how it is scored. Its `FIXED` tells what no checkpoint outlives:
by field, what of its value the saved state is built from. All other fields may change only where
the user says so. `flaxseg.training.config.TrainConfig` joins the groups.
"""
