"""The demo on another storage; `make demo` itself is run by CI's users."""

import subprocess
import sys
from pathlib import Path

from tests.backends.s3 import S3Server


def test_the_demo_runs_on_a_bucket_and_leaves_nothing(s3_server: S3Server, tmp_path: Path) -> None:
    """With a config file of one's own."""
    bucket = s3_server.make_bucket()
    options = "\n".join(f'{key} = "{value}"' for key, value in s3_server.options.items())
    file = tmp_path / "s3.toml"
    file.write_text(
        f'[storage]\nbackend = "s3"\nurl = "s3://{bucket}"\n'
        f'[storage.options]\n{options}\ncache = "{tmp_path}/cache"\n'
    )
    command = [sys.executable, "-m", "spectrogram_predictor", "demo", "--config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "every sound was recognised" in done.stdout
    assert "Contents" not in s3_server.client().list_objects_v2(Bucket=bucket)
