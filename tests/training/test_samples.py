import numpy as np

from flaxseg.training.samples import SampleFile


def test_every_step_has_one_row_however_often_the_run_is_killed(tmp_path):
    path = tmp_path / "samples.csv"
    file = SampleFile(path, 0)
    for step in (1, 2, 3):
        file.write(step, np.array([step, 7]))
    with path.open("a") as cut_off:
        cut_off.write("4,1")
    # The checkpoint is of step 2.
    SampleFile(path, 2).write(3, np.array([3, 7]))
    assert path.read_text() == "step,indices\n1,1 7\n2,2 7\n3,3 7\n"
