"""Whether this machine has a TPU: that libtpu is installed does not tell, it compiles anywhere."""

import glob
import os

_DEVICES = ("/dev/accel[0-9]*", "/dev/vfio/[0-9]*")
"""Where Linux shows the chips: up to v4, and from v5 on."""

_TOLD = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
}
"""What libtpu asks its host for, and complains at length about where it is none of a TPU."""


def has_tpu() -> bool:
    """Whether chips are attached to this machine."""
    return any(glob.glob(pattern) for pattern in _DEVICES)


def quiet_libtpu() -> None:
    """Keeps libtpu quiet on a machine without a TPU; must come before JAX looks for devices."""
    if not has_tpu():
        for variable, value in _TOLD.items():
            os.environ.setdefault(variable, value)
