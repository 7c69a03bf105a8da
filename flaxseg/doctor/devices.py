"""Devices: what JAX sees, and what it should."""

import collections
import glob

from flaxseg.doctor.packages import CUDA_PLUGINS, installed
from flaxseg.doctor.section import Finding, Section, first_line
from flaxseg.tpu import has_tpu


def has_gpu() -> bool:
    """Whether Linux shows an NVIDIA GPU."""
    return bool(glob.glob("/dev/nvidia[0-9]*"))


def examine_devices() -> Section:
    """Imports JAX and asks for devices, of every plugin that is installed."""
    try:
        import jax
    except Exception as error:  # whatever a broken installation raises
        what = f"jax cannot be imported: {first_line(error)}"
        mend = "pip install --force-reinstall -c constraints.txt jax jaxlib"
        return Section("devices", ["unknown, as jax cannot be imported"], [Finding(what, mend)])
    try:
        found = jax.devices()
    except RuntimeError as error:
        mend = "unset JAX_PLATFORMS, or install the plugin that it names"
        return Section("devices", ["none"], [Finding(f"JAX sees none: {first_line(error)}", mend)])
    kinds = collections.Counter((device.platform, device.device_kind) for device in found)
    lines = [f"{count} x {kind} ({platform})" for (platform, kind), count in kinds.items()]
    plugins = {"cuda": [name for name in CUDA_PLUGINS if installed(name)]}
    plugins["tpu"] = ["libtpu"] if installed("libtpu") else []
    attached = {"cuda": has_gpu(), "tpu": has_tpu()}
    findings = []
    for platform, names in plugins.items():
        if not names:
            if attached[platform]:
                what = f"JAX could use a {_KIND[platform]} here, but its plugin is not installed"
                findings.append(Finding(what, f"pip install -c constraints.txt -e '.[{platform}]'"))
            continue
        if platform == "tpu" and not attached["tpu"]:
            lines.append("libtpu is there, for flaxseg plan: no TPU is attached")
            continue
        try:
            jax.devices(platform)
        except RuntimeError as error:
            what = f"{' and '.join(names)} is installed, but JAX sees no {_KIND[platform]}"
            findings.append(Finding(f"{what}: {first_line(error)}", _MENDS[platform]))
    return Section("devices", lines, findings)


_KIND = {"cuda": "GPU of NVIDIA", "tpu": "TPU"}
_MENDS = {
    "cuda": "nvidia-smi shows GPU and driver; unset JAX_PLATFORMS if it is set; on a machine "
    f"without a GPU: pip uninstall {' '.join(CUDA_PLUGINS)}",
    "tpu": "end other processes that hold the TPU, and unset JAX_PLATFORMS if it is set",
}
