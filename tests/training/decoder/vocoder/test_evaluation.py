from __future__ import annotations

import numpy as np
import pytest
import torch

from audiollm.training.decoder.vocoder.evaluation import mean_pitch_errors, pitch_errors


def test_errors_are_counted_over_the_frames_that_they_are_about():
    target = torch.tensor([0.0, 200.0, 210.0, 0.0])
    predicted = torch.tensor([5.0, 190.0, 3.0, 180.0])
    errors = pitch_errors(predicted, target, voiced_threshold=10.0)
    assert (errors.absolute, errors.num_voiced, errors.num_wrong, errors.num_frames) == (10.0, 1, 2, 4)
    means = mean_pitch_errors([errors, pitch_errors(target, target, 10.0)])
    assert means == {"f0_error": pytest.approx(10 / 3), "voicing_error": 0.25}
    assert mean_pitch_errors([]) == {"f0_error": None, "voicing_error": None}
    assert np.isfinite(errors.absolute)
