import numpy as np

from dimo_jax.metrics.means import mean_defined, summarize


def test_undefined_values_are_counted_and_do_not_count():
    assert mean_defined([[1.0, np.nan], [np.inf, 3.0]]) == (2.0, 2)
    assert mean_defined([-np.inf, np.nan]) == (None, 2)
    assert mean_defined([]) == (None, 0)
    assert summarize({"psnr": [20.0, np.inf], "ssim": [0.5]}) == dict(
        psnr=20.0, psnr_undefined=1, ssim=0.5, ssim_undefined=0
    )
