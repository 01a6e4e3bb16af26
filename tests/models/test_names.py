"""The names that `accel.models` offers."""

import subprocess
import sys

import pytest

import accel.models


def test_importing_the_package_brings_in_no_pytorch():
    code = "import sys, accel.models; accel.models.__all__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.torch
@pytest.mark.parametrize("name", accel.models.__all__)
def test_every_name_is_there_and_stays_when_its_file_is_imported(name):
    pytest.importorskip("torch")
    import accel.models.exporter

    found = getattr(accel.models, name)
    assert callable(found)
    assert found.__name__ == name
    assert name in dir(accel.models)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"^module 'accel.models' has no attribute 'exprot'$"):
        accel.models.exprot  # noqa: B018
