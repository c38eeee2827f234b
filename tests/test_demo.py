"""The demo on another storage; `make demo` itself is run by CI's users."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.backends.s3 import S3Server

CONFIG = Path(__file__).resolve().parents[1] / "config" / "s3.toml"


@pytest.mark.parametrize("store", ["s3_server", pytest.param("swift", marks=pytest.mark.swift)])
def test_the_demo_runs_on_a_bucket_and_leaves_nothing(
    store: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """With the config file as it is shipped; credentials and the store's address are in the environment."""
    server: S3Server = request.getfixturevalue(store)
    server.client().create_bucket(Bucket="my-bucket")
    environ = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": server.key,
        "AWS_SECRET_ACCESS_KEY": server.secret,
        "AWS_DEFAULT_REGION": server.region,
        "AWS_ENDPOINT_URL": server.endpoint_url,
    }
    command = [sys.executable, "-m", "spectrogram_predictor", "demo", "--config", str(CONFIG)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environ, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "every sound was recognised" in done.stdout
    assert "Contents" not in server.client().list_objects_v2(Bucket="my-bucket")
