"""The settings of a training run, by what they are about.

Each group is a frozen dataclass whose fields become flags. Its `LIMITS` say what their values must
be. Its `FREE` names what a resumed run may change: what does not alter what is learnt from which
batch. `flaxseg.training.config.TrainConfig` joins the groups.
"""
