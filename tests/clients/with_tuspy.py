"""Upload a file with tuspy: URL FILE SHA256 AUTHORIZATION."""

import sys

from tusclient import client

url, path, sha256, authorization = sys.argv[1:5]
tus = client.TusClient(url, headers={"Authorization": authorization})
uploader = tus.uploader(
    path,
    chunk_size=32 * 2**20,
    metadata={"sha256": sha256, "filename": "model.h5"},
    retries=200,
    retry_delay=0.2,  # type: ignore[arg-type]  # seconds
)
uploader.upload()
print(uploader.url)
