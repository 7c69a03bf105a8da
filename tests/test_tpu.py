import os

from flaxseg import distributed, tpu


def test_libtpu_alone_makes_no_pod(monkeypatch):
    """It is installed where steps are planned, too."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    for chips in (False, True):
        monkeypatch.setattr(distributed, "has_tpu", lambda chips=chips: chips)
        assert distributed.launched_by_cluster({}) == chips
        assert not distributed.launched_by_cluster({"SLURM_NTASKS": "1"})


def test_libtpu_is_kept_quiet_where_no_chip_is(monkeypatch, tmp_path):
    monkeypatch.setattr(tpu, "_DEVICES", (str(tmp_path / "accel[0-9]*"),))
    told = {"TPU_SKIP_MDS_QUERY", "TPU_WORKER_HOSTNAMES", "TPU_ACCELERATOR_TYPE"}
    for name in told:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "accel0").touch()
    assert tpu.has_tpu()
    tpu.quiet_libtpu()
    assert not told & set(os.environ)
    (tmp_path / "accel0").rename(tmp_path / "accel")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "mine")
    tpu.quiet_libtpu()
    assert told <= set(os.environ) and os.environ["TPU_WORKER_HOSTNAMES"] == "mine"
    for name in told:  # what it set stays otherwise
        monkeypatch.delenv(name)
