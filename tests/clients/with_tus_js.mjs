// Upload a file with tus-js-client: URL FILE SHA256 AUTHORIZATION [ANYTHING to send bytes with the creation].

import { createReadStream } from "node:fs";
import { Upload } from "tus-js-client";

const [url, path, sha256, authorization, during] = process.argv.slice(2);
const upload = new Upload(createReadStream(path), {
  endpoint: url,
  headers: { Authorization: authorization },
  metadata: { sha256, filename: "model.h5" },
  uploadDataDuringCreation: Boolean(during),
  retryDelays: Array(200).fill(200),
  onError(error) {
    console.error(String(error));
    process.exit(1);
  },
  onSuccess() {
    console.log(upload.url);
    process.exit(0);
  },
});
upload.start();
